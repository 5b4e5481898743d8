/* Sends one NVMe admin command: nvme-admin DEVICE OPCODE CDW10 CDW11. Gives a lab's virtual functions
 * their queues and interrupts (Virtualization Management, NVM Express base specification 2.0, 5.27). */
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

int main(int count, char **words) {
    if (count != 5) {
        fprintf(stderr, "usage: nvme-admin DEVICE OPCODE CDW10 CDW11\n");
        return 2;
    }
    struct nvme_passthru_cmd command = {
        .opcode = strtoul(words[2], NULL, 0),
        .cdw10 = strtoul(words[3], NULL, 0),
        .cdw11 = strtoul(words[4], NULL, 0),
    };
    int device = open(words[1], O_RDONLY);
    int status = device < 0 ? -1 : ioctl(device, NVME_IOCTL_ADMIN_CMD, &command);
    if (status < 0)
        perror(words[1]);
    else if (status > 0)
        fprintf(stderr, "%s: NVMe status %#x\n", words[1], status);
    return status != 0;
}
