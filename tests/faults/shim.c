// Preloaded into a process: counts the calls of the C library that change files below one folder,
// and at the chosen one kills the process or fails. It sees Python's own calls, and those of
// libraries in C++ (torch.save) alike; not those that bypass the C library.
//
// fault_new() maps the state, shared with processes forked later; fault_arm() begins to count.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, KILL_IN_WRITE, FAIL_ONCE, FAIL_FROM };
enum { LOG = 1 << 20, PATH = 4096 };

typedef struct {
    atomic_long count;  // calls so far
    atomic_long fired;  // times that one was killed or failed
    long at;            // the chosen one, from 1
    int mode, error, armed;
    atomic_long logged;
    char folder[PATH];
    char log[LOG];      // a line for each call: takes space or not, name, path
} State;

static State *state;

State *fault_new(void) {
    void *memory = mmap(NULL, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return state = memory == MAP_FAILED ? NULL : memory;
}

void fault_free(State *old) {
    if (state == old) state = NULL;
    munmap(old, sizeof(State));
}

void fault_arm(const char *folder, int mode, long at, int error) {
    snprintf(state->folder, PATH, "%s", folder);
    state->mode = mode, state->at = at, state->error = error, state->armed = 1;
}

long fault_count(State *of) { return of->count; }
long fault_fired(State *of) { return of->fired; }
const char *fault_log(State *of) { return of->log; }

// The absolute path of a file descriptor, or of a path relative to one.
static void of_descriptor(int fd, char *out) {
    char link[64];
    if (fd == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH - 1);
    out[n > 0 ? n : 0] = 0;
}

static void absolute(int fd, const char *path, char *out) {
    if (path[0] == '/') {
        snprintf(out, PATH, "%s", path);
        return;
    }
    of_descriptor(fd, out);
    size_t n = strlen(out);
    snprintf(out + n, PATH - n, "/%s", path);
}

// What to do about a call: 0 perform it, 1 fail with errno set, 2 a write of half, then die.
static int hit(const char *name, int space, const char *path) {
    size_t n = strlen(state->folder);
    if (strncmp(path, state->folder, n) || path[n] != '/') return 0;
    long number = atomic_fetch_add(&state->count, 1) + 1;
    char line[PATH + 64];
    int length = snprintf(line, sizeof line, "%d\t%s\t%s\n", space, name, path + n + 1);
    long at = atomic_fetch_add(&state->logged, length);
    if (at + length < LOG) memcpy(state->log + at, line, length);
    int later = state->mode == FAIL_FROM && number > state->at && space;
    if (state->mode == COUNT || (number != state->at && !later)) return 0;
    atomic_fetch_add(&state->fired, 1);
    if (state->mode == KILL) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    if (state->mode == KILL_IN_WRITE) return 2;
    errno = state->error;
    return 1;
}

static int hit_path(const char *name, int space, int fd, const char *path) {
    if (!state || !state->armed || !path) return 0;
    char full[PATH];
    absolute(fd, path, full);
    return hit(name, space, full);
}

// A folder that is there already, or a file that is not, is no change.
static int hit_if(int there, const char *name, int space, int fd, const char *path) {
    if (!state || !state->armed || !path) return 0;
    int found = syscall(SYS_faccessat, fd, path, F_OK) == 0;
    if (found != there) return 0;
    return hit_path(name, space, fd, path);
}

static int hit_descriptor(const char *name, int space, int fd) {
    if (!state || !state->armed || fd < 0) return 0;
    char full[PATH];
    of_descriptor(fd, full);
    return hit(name, space, full);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int writes(int flags) { return flags & (O_CREAT | O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = writes(flags) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        if (writes(flags) && hit_path("open", 1, AT_FDCWD, path)) return -1; \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int fd, const char *path, int flags, ...) { \
        REAL(name); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = writes(flags) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        if (writes(flags) && hit_path("openat", 1, fd, path)) return -1; \
        return real(fd, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define CREAT(name) \
    int name(const char *path, mode_t mode) { \
        REAL(name); \
        return hit_path("creat", 1, AT_FDCWD, path) ? -1 : real(path, mode); \
    }
CREAT(creat)
CREAT(creat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        return strpbrk(mode, "wax") && hit_path("fopen", 1, AT_FDCWD, path) ? NULL : real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

static void die(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); }

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    int what = hit_descriptor("write", 1, fd);
    if (what == 2) real(fd, data, n / 2), die();
    return what ? -1 : real(fd, data, n);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    int what = hit_descriptor("writev", 1, fd);
    if (what == 2) real(fd, parts, n / 2), die();
    return what ? -1 : real(fd, parts, n);
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t n, offset_type offset) { \
        REAL(name); \
        int what = hit_descriptor("pwrite", 1, fd); \
        if (what == 2) real(fd, data, n / 2, offset), die(); \
        return what ? -1 : real(fd, data, n, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define SENDFILE(name, offset_type) \
    ssize_t name(int out, int in, offset_type *offset, size_t n) { \
        REAL(name); \
        int what = hit_descriptor("sendfile", 1, out); \
        if (what == 2) real(out, in, offset, n / 2), die(); \
        return what ? -1 : real(out, in, offset, n); \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags) {
    REAL(copy_file_range);
    return hit_descriptor("copy_file_range", 1, out) ? -1 : real(in, from, out, to, n, flags);
}

// Those that remain have the same form: paths or a descriptor, and what else they take.
#define ONE_PATH(name, space, fd, path, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        return hit_path(#name, space, fd, path) ? -1 : real arguments; \
    }
#define IF_THERE(name, there, space, fd, path, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        return hit_if(there, #name, space, fd, path) ? -1 : real arguments; \
    }
IF_THERE(mkdir, 0, 1, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
IF_THERE(mkdirat, 0, 1, fd, path, (int fd, const char *path, mode_t mode), (fd, path, mode))
IF_THERE(rmdir, 1, 0, AT_FDCWD, path, (const char *path), (path))
IF_THERE(unlink, 1, 0, AT_FDCWD, path, (const char *path), (path))
IF_THERE(unlinkat, 1, 0, fd, path, (int fd, const char *path, int flags), (fd, path, flags))
IF_THERE(remove, 1, 0, AT_FDCWD, path, (const char *path), (path))
ONE_PATH(truncate, 0, AT_FDCWD, path, (const char *path, off_t n), (path, n))
ONE_PATH(truncate64, 0, AT_FDCWD, path, (const char *path, off64_t n), (path, n))
ONE_PATH(chmod, 0, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ONE_PATH(fchmodat, 0, fd, path, (int fd, const char *path, mode_t mode, int flags), (fd, path, mode, flags))
ONE_PATH(utimensat, 0, fd, path,
         (int fd, const char *path, const struct timespec times[2], int flags), (fd, path, times, flags))
// The folder that a link or the new name appears in.
ONE_PATH(symlink, 1, AT_FDCWD, path, (const char *to, const char *path), (to, path))
ONE_PATH(symlinkat, 1, fd, path, (const char *to, int fd, const char *path), (to, fd, path))
ONE_PATH(link, 1, AT_FDCWD, path, (const char *from, const char *path), (from, path))
ONE_PATH(linkat, 1, fd, path, (int from_fd, const char *from, int fd, const char *path, int flags),
         (from_fd, from, fd, path, flags))
ONE_PATH(rename, 0, AT_FDCWD, path, (const char *from, const char *path), (from, path))
ONE_PATH(renameat, 0, fd, path, (int from_fd, const char *from, int fd, const char *path),
         (from_fd, from, fd, path))
ONE_PATH(renameat2, 0, fd, path,
         (int from_fd, const char *from, int fd, const char *path, unsigned flags),
         (from_fd, from, fd, path, flags))

#define DESCRIPTOR(name, space, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        return hit_descriptor(#name, space, fd) ? -1 : real arguments; \
    }
DESCRIPTOR(fsync, 1, (int fd), (fd))
DESCRIPTOR(fdatasync, 1, (int fd), (fd))
DESCRIPTOR(ftruncate, 0, (int fd, off_t n), (fd, n))
DESCRIPTOR(ftruncate64, 0, (int fd, off64_t n), (fd, n))
DESCRIPTOR(fchmod, 0, (int fd, mode_t mode), (fd, mode))
