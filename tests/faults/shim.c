/* Preloaded into a process under test: writes down what it asks of the disk, and makes the disk refuse or stall.
 *
 * Only files below FAULTS_SHIM_FOLDER are looked at. FAULTS_SHIM_TRACE names a file to which every change is
 * appended (see disk.py), FAULTS_SHIM_CONTROL one of struct control, shared with the test that turns faults on.
 * A change is written down once it has happened; a sync twice, before and after, since what other threads write
 * meanwhile is not covered by it. Own system calls go through syscall(), so that nothing calls itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum operation { CREATE, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, UNLINK, RENAME };
enum call { C_WRITE = 1, C_PWRITE = 2, C_FSYNC = 4, C_FDATASYNC = 8, C_RENAME = 16, C_FTRUNCATE = 32, C_OPEN = 64 };
enum kind { FAIL = 1, SHORT = 2, STALL = 3 };

struct control {
    volatile uint32_t on;         /* faults happen while this is not 0 */
    uint32_t calls;               /* which calls, bits of enum call */
    uint32_t kind;
    uint32_t error;               /* errno of FAIL */
    uint32_t every;               /* one in so many matching calls, scattered but always the same ones; 1 for all */
    uint32_t reserved;
    volatile uint64_t matched;    /* calls seen while on */
    volatile uint64_t given;      /* faults given */
    char name[64];                /* only files whose name contains this */
};

struct head {
    uint8_t operation;
    uint8_t ok;
    uint16_t name_bytes;
    uint32_t reserved;
    uint64_t offset;
    uint64_t data_bytes;
};

#define DESCRIPTORS 65536
static char *names[DESCRIPTORS]; /* relative to the folder; "." for the folder itself */
static char folder[PATH_MAX];
static size_t folder_bytes;
static int trace_fd = -1;
static struct control *control;

static int (*real_open)(const char *, int, ...), (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *), (*real_unlink)(const char *), (*real_close)(int);

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    real_open = next("open"), real_openat = next("openat"), real_write = next("write"), real_pwrite = next("pwrite");
    real_fsync = next("fsync"), real_fdatasync = next("fdatasync"), real_ftruncate = next("ftruncate");
    real_rename = next("rename"), real_unlink = next("unlink"), real_close = next("close");
    const char *of = getenv("FAULTS_SHIM_FOLDER");
    if (of == NULL || strlen(of) >= sizeof folder) return;
    strcpy(folder, of);
    folder_bytes = strlen(folder);
    const char *trace = getenv("FAULTS_SHIM_TRACE"), *shared = getenv("FAULTS_SHIM_CONTROL");
    if (trace != NULL) trace_fd = syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (shared != NULL) {
        int fd = syscall(SYS_openat, AT_FDCWD, shared, O_RDWR | O_CLOEXEC);
        void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED) control = at;
        syscall(SYS_close, fd);
    }
}

static const char *within(const char *path) { /* the name below the folder, NULL for what lies elsewhere */
    if (folder_bytes == 0 || strncmp(path, folder, folder_bytes) != 0) return NULL;
    if (path[folder_bytes] == 0) return ".";
    return path[folder_bytes] == '/' ? path + folder_bytes + 1 : NULL;
}

static const char *named(int fd) { return fd >= 0 && fd < DESCRIPTORS ? names[fd] : NULL; }

static void note(enum operation operation, const char *name, int ok, uint64_t offset, const void *data, size_t bytes) {
    if (trace_fd < 0 || name == NULL) return;
    int before = errno;
    struct head head = {operation, ok, strlen(name), 0, offset, bytes};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)name, head.name_bytes}, {(void *)data, bytes}};
    syscall(SYS_writev, trace_fd, parts, 3);
    errno = before;
}

/* Whether a call is to fail now (with errno set), and whether it may do only half; stalls happen in here. */
static int faulty(enum call call, const char *name, int *half) {
    if (control == NULL || name == NULL || !control->on || !(control->calls & call)) return 0;
    if (strstr(name, control->name) == NULL) return 0;
    uint64_t number = __atomic_add_fetch(&control->matched, 1, __ATOMIC_SEQ_CST);
    if (control->every > 1 && ((number * 0x9E3779B97F4A7C15u) >> 40) % control->every) return 0;
    __atomic_add_fetch(&control->given, 1, __ATOMIC_SEQ_CST);
    if (control->kind == STALL) {
        struct timespec pause = {0, 5000000};
        while (control->on) nanosleep(&pause, NULL);
        return 0;
    }
    if (control->kind == SHORT) {
        *half = 1;
        return 0;
    }
    errno = control->error;
    return 1;
}

static int opened(int fd, int existed, int flags) {
    char link[64], path[PATH_MAX];
    if (fd < 0 || fd >= DESCRIPTORS || folder_bytes == 0) return fd;
    int before = errno;
    strcpy(link, "/proc/self/fd/");
    char digits[16];
    int at = sizeof digits, rest = fd;
    digits[--at] = 0;
    do digits[--at] = '0' + rest % 10; while ((rest /= 10) > 0);
    strcat(link, digits + at);
    ssize_t bytes = readlink(link, path, sizeof path - 1);
    free(names[fd]);
    names[fd] = NULL;
    if (bytes > 0) {
        path[bytes] = 0;
        const char *name = within(path);
        if (name != NULL) {
            names[fd] = strdup(name);
            if (!existed && (flags & O_CREAT)) note(CREATE, name, 1, 0, NULL, 0);
            else if ((flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY) note(TRUNCATE, name, 1, 0, NULL, 0);
        }
    }
    errno = before;
    return fd;
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    struct stat found;
    int before = errno, half = 0;
    int existed = (flags & O_CREAT) == 0 || fstatat(at, path, &found, 0) == 0;
    errno = before;
    if (faulty(C_OPEN, within(path), &half)) return -1;
    return opened(real_openat(at, path, flags, mode), existed, flags);
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return open_at(at, path, flags, mode); }

int close(int fd) {
    if (fd >= 0 && fd < DESCRIPTORS && names[fd] != NULL) {
        char *name = names[fd];
        names[fd] = NULL;
        free(name);
    }
    return real_close(fd);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    const char *name = named(fd);
    int half = 0;
    if (name == NULL) return real_write(fd, data, bytes);
    if (faulty(C_WRITE, name, &half)) return -1;
    ssize_t done = real_write(fd, data, half && bytes > 1 ? bytes / 2 : bytes);
    if (done > 0) note(WRITE, name, 1, lseek(fd, 0, SEEK_CUR) - done, data, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    const char *name = named(fd);
    int half = 0;
    if (name == NULL) return real_pwrite(fd, data, bytes, offset);
    if (faulty(C_PWRITE, name, &half)) return -1;
    ssize_t done = real_pwrite(fd, data, half && bytes > 1 ? bytes / 2 : bytes, offset);
    if (done > 0) note(WRITE, name, 1, offset, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return pwrite(fd, data, bytes, offset); }

static int sync_of(int fd, enum call call, int (*real)(int)) {
    const char *name = named(fd);
    int half = 0;
    if (name == NULL) return real(fd);
    note(SYNC_BEGIN, name, 1, 0, NULL, 0);
    int failed = faulty(call, name, &half) ? -1 : real(fd);
    note(SYNC_END, name, failed == 0, 0, NULL, 0);
    return failed;
}

int fsync(int fd) { return sync_of(fd, C_FSYNC, real_fsync); }
int fdatasync(int fd) { return sync_of(fd, C_FDATASYNC, real_fdatasync); }

int ftruncate(int fd, off_t size) {
    const char *name = named(fd);
    int half = 0;
    if (name == NULL) return real_ftruncate(fd, size);
    if (faulty(C_FTRUNCATE, name, &half)) return -1;
    int failed = real_ftruncate(fd, size);
    if (failed == 0) note(TRUNCATE, name, 1, size, NULL, 0);
    return failed;
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int unlink(const char *path) {
    int failed = real_unlink(path);
    if (failed == 0) note(UNLINK, within(path), 1, 0, NULL, 0);
    return failed;
}

int rename(const char *from, const char *to) {
    const char *name = within(from), *new = within(to);
    int half = 0;
    if (name != NULL && faulty(C_RENAME, name, &half)) return -1;
    int failed = real_rename(from, to);
    if (failed == 0 && name != NULL && new != NULL) note(RENAME, name, 1, 0, new, strlen(new));
    return failed;
}
