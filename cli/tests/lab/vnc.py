# Takes a picture from a VNC server on a Unix socket: PATH TO.ppm. RFC 6143, raw encoding, 32 bits a pixel.
import socket, struct, sys

s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])


def take(n):
    b = b""
    while len(b) < n:
        more = s.recv(n - len(b))
        if not more:
            sys.exit("the server has hung up")
        b += more
    return b


s.sendall(take(12))
types = take(take(1)[0])
assert 1 in types, types
s.sendall(b"\x01")
assert take(4) == b"\0\0\0\0"
s.sendall(b"\x01")
width, height = struct.unpack(">HH", take(4))
take(16)
take(struct.unpack(">I", take(4))[0])
s.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
s.sendall(struct.pack(">BxHi", 2, 1, 0))
s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
pixels = bytearray(width * height * 3)
done = 0
while done < width * height:
    kind = take(1)[0]
    assert kind == 0, kind
    take(1)
    for _ in range(struct.unpack(">H", take(2))[0]):
        x, y, w, h, encoding = struct.unpack(">HHHHi", take(12))
        assert encoding == 0, encoding
        raw = take(w * h * 4)
        for row in range(h):
            line = raw[row * w * 4:(row + 1) * w * 4]
            at = ((y + row) * width + x) * 3
            for channel, offset in ((0, 2), (1, 1), (2, 0)):
                pixels[at + channel:at + w * 3:3] = line[offset::4]
        done += w * h
with open(sys.argv[2], "wb") as f:
    f.write(b"P6 %d %d 255\n" % (width, height) + pixels)
