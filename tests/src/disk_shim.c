// Between the daemon and the C library: calls that fail on purpose, and a log of those that change
// the disk. QERA_FAIL is "CALL TEXT COUNT ERRNO": the first COUNT calls (open, read, stat) on a path
// that contains TEXT fail. QERA_KILL ends the process where a file or folder is to be renamed to a path
// that contains it. QERA_LOG names the file of the log. QERA_FAULT is "CALL TEXT NTH TIMES ACTION":
// from the NTH call of this kind on a path that contains TEXT on, TIMES calls fail with ACTION as their
// errno, or are shortened (-1); or the process ends before the NTH (-2) or behind it (-3; a write has
// written the half of what it was to). QERA_COUNT is "TEXT FILE": how many calls of each kind there
// were on such paths is written there at the end. QERA_EVERY is "TEXT FIRST READING WRITING FILE":
// from the FIRST call on a path that contains TEXT on, each READING-th that reads or asks fails with
// EIO, each WRITING-th that needs room with ENOSPC; how many did is written to FILE at the end.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { FAILS = 0, SHORTENED = -1, KILLED = -2, CUT = -3, UNTOUCHED = 1 };
static const char *const kinds[] = {"open",   "read",   "write", "stat", "list", "sync",
                                    "rename", "unlink", "mkdir", "link", "size", "lock"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int failed;
static long calls[KINDS];

static const char *text_of(const char *variable, char text[256]) {
    const char *rule = getenv(variable);
    return rule && sscanf(rule, "%255s", text) == 1 ? text : 0;
}

static long passed, read_of, written_of, refused;

// Whether it is this call's turn to fail; those that end a run are left alone.
static int has_its_turn(const char *call, const char *path) {
    char text[256];
    long first, reading, writing;
    const char *rule = getenv("QERA_EVERY");
    if (!rule || sscanf(rule, "%255s %ld %ld %ld", text, &first, &reading, &writing) != 4 ||
        !strstr(path, text) || __atomic_add_fetch(&passed, 1, __ATOMIC_SEQ_CST) < first)
        return 0;
    int reads = !!strstr("open read stat list", call);
    int makes = !!strstr("write mkdir rename link", call);
    long *count = reads ? &read_of : &written_of, period = reads ? reading : writing;
    if (!(reads || makes) || __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST) % period) return 0;
    __atomic_add_fetch(&refused, 1, __ATOMIC_SEQ_CST);
    errno = reads ? EIO : ENOSPC;
    return 1;
}

// What becomes of a call: FAILS (errno is set), SHORTENED, CUT or UNTOUCHED.
static int fault(const char *call, const char *path) {
    char kind[16], text[256];
    long nth = 0, times = 0;
    int action = 0, known = 0;
    if (path && strcmp(call, "open") && has_its_turn(call, path)) return FAILS;
    const char *rule = getenv("QERA_FAULT");
    int is_ruled = rule && sscanf(rule, "%15s %255s %ld %ld %d", kind, text, &nth, &times, &action) == 5;
    if (!path || !((is_ruled && strstr(path, text)) ||
                   (text_of("QERA_COUNT", text) && strstr(path, text))))
        return UNTOUCHED;
    while (known < KINDS - 1 && strcmp(kinds[known], call)) known++;
    long number = __atomic_add_fetch(&calls[known], 1, __ATOMIC_SEQ_CST);
    if (!is_ruled || strcmp(kind, call) || number < nth || number >= nth + times) return UNTOUCHED;
    if (action == KILLED) raise(SIGKILL);
    if (action > 0) errno = action;
    return action > 0 ? FAILS : action;
}

__attribute__((destructor)) static void tell_counts(void) {
    char text[256], file[4096];
    const char *rule = getenv("QERA_COUNT");
    if (!rule || sscanf(rule, "%255s %4095s", text, file) != 2) return;
    FILE *out = fopen(file, "w");
    for (int kind = 0; out && kind < KINDS; kind++) fprintf(out, "%s %ld\n", kinds[kind], calls[kind]);
    if (out) fclose(out);
}

__attribute__((destructor)) static void tell_refused(void) {
    char file[4096];
    const char *rule = getenv("QERA_EVERY");
    if (!rule || sscanf(rule, "%*s %*d %*d %*d %4095s", file) != 1) return;
    FILE *out = fopen(file, "w");
    if (out) fprintf(out, "%ld\n", refused), fclose(out);
}

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

static int is_watched(void) {
    return getenv("QERA_FAIL") || getenv("QERA_FAULT") || getenv("QERA_COUNT") || getenv("QERA_EVERY");
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
    if (NEXT(write)(fd, line, length) != length) abort();
    close(fd);
}

// A call that changes the disk, or asks of it; the process may end before it or behind it.
#define WITH_FAULT(call, path, failure, made)                      \
    int becomes = fault(call, path);                               \
    if (becomes == FAILS) return failure;                          \
    __typeof__(made) answer = made;                                \
    if (becomes == CUT) raise(SIGKILL)

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    if (fails("open", path) || has_its_turn(flags & O_CREAT ? "mkdir" : "open", path)) return -1;
    WITH_FAULT("open", path, -1, NEXT(open64)(path, flags, mode));
    if (answer >= 0 && flags & O_CREAT) say("create", path);
    return answer;
}

ssize_t read(int fd, void *to, size_t size) {
    char path[4096];
    if (is_watched()) {
        if (fails("read", path_of(fd, path, sizeof path))) return -1;
        int becomes = fault("read", path);
        if (becomes == FAILS) return -1;
        if (becomes == SHORTENED && size > 1) size /= 2;
    }
    return NEXT(read)(fd, to, size);
}

ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
    char path[4096];
    if (is_watched()) {
        if (fails("read", path_of(fd, path, sizeof path))) return -1;
        int becomes = fault("read", path);
        if (becomes == FAILS) return -1;
        if (becomes == SHORTENED && size > 1) size /= 2;
    }
    return NEXT(pread64)(fd, to, size, at);
}

ssize_t write(int fd, const void *from, size_t size) {
    char path[4096];
    if (is_watched()) {
        int becomes = fault("write", path_of(fd, path, sizeof path));
        if (becomes == FAILS) return -1;
        if (becomes == SHORTENED && size > 1) size /= 2;
        if (becomes == CUT) {
            if (NEXT(write)(fd, from, size / 2) >= 0) raise(SIGKILL);
        }
    }
    return NEXT(write)(fd, from, size);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *to) {
    // Rust's library asks about no path at all, to see whether there is such a call. The header rules
    // that out, and the compiler would drop the question.
    const char *volatile said = path;
    const char *any = said;
    char opened[4096];
    if (any && *any && fails("stat", any)) return -1;
    if (any && !*any && is_watched()) any = path_of(folder, opened, sizeof opened);
    if (any && *any && fault("stat", any) == FAILS) return -1;
    return NEXT(statx)(folder, path, flags, mask, to);
}

struct dirent64 *readdir64(DIR *folder) {
    char path[4096];
    if (is_watched() && fault("list", path_of(dirfd(folder), path, sizeof path)) == FAILS) return 0;
    return NEXT(readdir64)(folder);
}

int fsync(int fd) {
    char path[4096];
    say("sync", path_of(fd, path, sizeof path));
    WITH_FAULT("sync", path, -1, NEXT(fsync)(fd));
    return answer;
}

int fdatasync(int fd) {
    char path[4096];
    say("sync", path_of(fd, path, sizeof path));
    WITH_FAULT("sync", path, -1, NEXT(fdatasync)(fd));
    return answer;
}

int ftruncate64(int fd, off64_t size) {
    char path[4096];
    WITH_FAULT("size", path_of(fd, path, sizeof path), -1, NEXT(ftruncate64)(fd, size));
    return answer;
}

int flock(int fd, int how) {
    char path[4096];
    WITH_FAULT("lock", path_of(fd, path, sizeof path), -1, NEXT(flock)(fd, how));
    return answer;
}

int mkdir(const char *path, mode_t mode) {
    WITH_FAULT("mkdir", path, -1, NEXT(mkdir)(path, mode));
    if (!answer) say("create", path);
    return answer;
}

int symlink(const char *to, const char *path) {
    WITH_FAULT("link", path, -1, NEXT(symlink)(to, path));
    return answer;
}

int unlink(const char *path) {
    say("unlink", path);
    WITH_FAULT("unlink", path, -1, NEXT(unlink)(path));
    return answer;
}

int unlinkat(int folder, const char *name, int flags) {
    char path[4096];
    WITH_FAULT("unlink", path_of(folder, path, sizeof path), -1, NEXT(unlinkat)(folder, name, flags));
    return answer;
}

int rename(const char *from, const char *to) {
    const char *killed = getenv("QERA_KILL");
    if (killed && strstr(to, killed)) raise(SIGKILL);
    WITH_FAULT("rename", to, -1, NEXT(rename)(from, to));
    if (!answer) say("create", to);
    return answer;
}
