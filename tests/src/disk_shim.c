// Between the daemon and the C library: calls that fail on purpose, and a log of those that change
// the disk. QERA_FAIL is "CALL TEXT COUNT ERRNO": the first COUNT calls (open, read, stat) on a path
// that contains TEXT fail. QERA_KILL ends the process where a file or folder is to be renamed to a path
// that contains it. QERA_LOG names the file of the log.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int failed;

static int fails(const char *call, const char *path) {
    char kind[16], text[256];
    int count, number;
    const char *rule = getenv("QERA_FAIL");
    if (!rule || !path || sscanf(rule, "%15s %255s %d %d", kind, text, &count, &number) != 4)
        return 0;
    if (strcmp(kind, call) || !strstr(path, text)) return 0;
    if (__atomic_fetch_add(&failed, 1, __ATOMIC_SEQ_CST) >= count) return 0;
    errno = number;
    return 1;
}

static const char *path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static void say(const char *call, const char *path) {
    const char *log = getenv("QERA_LOG");
    if (!log) return;
    char line[4400];
    int length = snprintf(line, sizeof line, "%s %s\n", call, path);
    int fd = NEXT(open64)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (write(fd, line, length) != length) abort();
    close(fd);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    if (fails("open", path)) return -1;
    int fd = NEXT(open64)(path, flags, mode);
    if (fd >= 0 && flags & O_CREAT) say("create", path);
    return fd;
}

ssize_t read(int fd, void *to, size_t size) {
    char path[4096];
    if (getenv("QERA_FAIL") && fails("read", path_of(fd, path, sizeof path))) return -1;
    return NEXT(read)(fd, to, size);
}

ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
    char path[4096];
    if (getenv("QERA_FAIL") && fails("read", path_of(fd, path, sizeof path))) return -1;
    return NEXT(pread64)(fd, to, size, at);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *to) {
    // Rust's library asks about no path at all, to see whether there is such a call. The header rules
    // that out, and the compiler would drop the question.
    const char *volatile said = path;
    const char *any = said;
    if (any && *any && fails("stat", any)) return -1;
    return NEXT(statx)(folder, path, flags, mask, to);
}

int fsync(int fd) {
    char path[4096];
    say("sync", path_of(fd, path, sizeof path));
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    char path[4096];
    say("sync", path_of(fd, path, sizeof path));
    return NEXT(fdatasync)(fd);
}

int mkdir(const char *path, mode_t mode) {
    int failure = NEXT(mkdir)(path, mode);
    if (!failure) say("create", path);
    return failure;
}

int unlink(const char *path) {
    say("unlink", path);
    return NEXT(unlink)(path);
}

int rename(const char *from, const char *to) {
    const char *killed = getenv("QERA_KILL");
    if (killed && strstr(to, killed)) raise(SIGKILL);
    int failure = NEXT(rename)(from, to);
    if (!failure) say("create", to);
    return failure;
}
