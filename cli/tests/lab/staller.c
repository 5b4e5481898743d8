/* Takes a CPU away for so many milliseconds, every 300 ms, as a real-time process: staller GROUP MS TIMES */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    int group = open(words[1], O_WRONLY);
    if (group < 0 || write(group, "0", 1) != 1) { perror(words[1]); return 1; }
    struct sched_param priority = { .sched_priority = 50 };
    if (sched_setscheduler(0, SCHED_FIFO, &priority)) { perror("SCHED_FIFO"); return 1; }
    for (int i = atoi(words[3]); i > 0; i--) {
        double end = now() + atof(words[2]);
        while (now() < end) { }
        usleep(300000);
    }
    return 0;
}
