/* A layer between a program and its disk, for tests: LD_PRELOAD it.
 *
 * It writes down, in order, what is done below one folder, so that a test can work out what a power cut would have
 * left; and it makes calls fail. Environment:
 *
 *   POSTWRIGHT_DISK       the folder; nothing else is touched
 *   POSTWRIGHT_DISK_LOG   where to write down; see disk.rs for the records
 *   POSTWRIGHT_DISK_FAIL  "write:7:28" or "sync:3:5": the seventh write fails with errno 28, once
 *   POSTWRIGHT_DISK_FULL  while this file exists, nothing becomes longer: ENOSPC
 *   POSTWRIGHT_DISK_NO_INODES  while this file exists, no file and no folder is made: ENOSPC; those that are there grow
 *   POSTWRIGHT_DISK_DIE   while this file exists, the next write is the program's end: SIGKILL, before anything is written
 *
 * What the program writes to its standard output is written down too, so that a log says what had been promised when.
 *
 * Invariant: one call at a time is made and written down; the order of the log is the order on the disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static const char *full, *no_inodes, *die;
static int out = -1;
static long fail_nth, writes, syncs;
static int fail_errno, fail_sync;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    const char *place = getenv("POSTWRIGHT_DISK");
    if (!place) return;
    snprintf(folder, sizeof folder, "%s", place);
    full = getenv("POSTWRIGHT_DISK_FULL");
    no_inodes = getenv("POSTWRIGHT_DISK_NO_INODES");
    die = getenv("POSTWRIGHT_DISK_DIE");
    const char *log = getenv("POSTWRIGHT_DISK_LOG");
    if (log) out = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char *fail = getenv("POSTWRIGHT_DISK_FAIL");
    if (fail) {
        fail_sync = strncmp(fail, "sync", 4) == 0;
        sscanf(fail, "%*[a-z]:%ld:%d", &fail_nth, &fail_errno);
    }
}

static int below(const char *path) {
    size_t len = strlen(folder);
    return len && strncmp(path, folder, len) == 0 && (path[len] == 0 || path[len] == '/');
}

/* The path of an open file, if it is below the folder. */
static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return below(path);
}

static int absolute(int dir, const char *name, char *path) {
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else if (dir == AT_FDCWD) {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        if (snprintf(path, PATH_MAX, "%s/%s", here, name) >= PATH_MAX) return 0;
    } else {
        if (!path_of(dir, path)) return 0;
        size_t len = strlen(path);
        snprintf(path + len, PATH_MAX - len, "/%s", name);
    }
    return below(path);
}

/* Kind, inode, two numbers, then the octets of text and data with their lengths; all numbers little-endian. */
static void note(char kind, uint64_t inode, uint64_t a, uint64_t b, const char *text, const void *data, size_t len) {
    if (out < 0) return;
    uint64_t head[6] = {(uint64_t)kind, inode, a, b, strlen(text), len};
    struct iovec parts[3] = {{head, sizeof head}, {(void *)text, strlen(text)}, {(void *)data, len}};
    if (REAL(writev)(out, parts, 3) < 0) abort();
}

static uint64_t inode(int fd) {
    struct stat stat;
    return fstat(fd, &stat) == 0 ? stat.st_ino : 0;
}

static int there(const char *file) { return file && access(file, F_OK) == 0; }
static int is_full(void) { return there(full); }
static int has_no_inodes(void) { return is_full() || there(no_inodes); }

static int fails(int sync) {
    long count = sync ? ++syncs : ++writes;
    if (!fail_nth || fail_sync != sync || count != fail_nth) return 0;
    errno = fail_errno;
    return 1;
}

static ssize_t written(int fd, const void *data, size_t len, off_t at) {
    char path[PATH_MAX];
    if (fd == 1) {
        ssize_t count = REAL(write)(fd, data, len);
        if (count > 0) note('P', 0, 0, 0, "", data, count);
        return count;
    }
    if (!path_of(fd, path)) return at < 0 ? REAL(write)(fd, data, len) : REAL(pwrite)(fd, data, len, at);
    if (there(die)) kill(getpid(), SIGKILL);
    if (fails(0)) return -1;
    struct stat stat;
    fstat(fd, &stat);
    off_t place = at;
    if (at < 0) place = fcntl(fd, F_GETFL) & O_APPEND ? stat.st_size : lseek(fd, 0, SEEK_CUR);
    /* A disk that is full takes nothing, not even where a file was made longer in advance: those are holes. */
    if (is_full()) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t count = at < 0 ? REAL(write)(fd, data, len) : REAL(pwrite)(fd, data, len, at);
    if (count > 0) note('W', stat.st_ino, place, 0, "", data, count);
    return count;
}

ssize_t write(int fd, const void *data, size_t len) {
    pthread_mutex_lock(&lock);
    ssize_t count = written(fd, data, len, -1);
    pthread_mutex_unlock(&lock);
    return count;
}

static ssize_t at_place(int fd, const void *data, size_t len, off_t at) {
    pthread_mutex_lock(&lock);
    ssize_t count = written(fd, data, len, at);
    pthread_mutex_unlock(&lock);
    return count;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return at_place(fd, data, len, at); }
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at) { return at_place(fd, data, len, at); }

/* The first part only: the caller writes the rest in another call. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

static int synced(int fd, int data_only) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = path_of(fd, path), result = -1;
    if (!ours || !fails(1)) {
        result = data_only ? REAL(fdatasync)(fd) : REAL(fsync)(fd);
        if (result == 0 && ours) note('S', inode(fd), 0, 0, path, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(fd, 0); }
int fdatasync(int fd) { return synced(fd, 1); }

static int resized(int fd, off_t len) {
    char path[PATH_MAX];
    struct stat stat;
    pthread_mutex_lock(&lock);
    int ours = path_of(fd, path), result = -1;
    if (ours && fstat(fd, &stat) == 0 && len > stat.st_size && is_full()) {
        errno = ENOSPC;
    } else {
        result = REAL(ftruncate)(fd, len);
        if (result == 0 && ours) note('T', inode(fd), len, 0, "", "", 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t len) { return resized(fd, len); }
int ftruncate64(int fd, off64_t len) { return resized(fd, len); }

static int opened(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = absolute(dir, name, path);
    int is_new = ours && (flags & O_CREAT) && access(path, F_OK) != 0;
    int fd = -1;
    if (is_new && has_no_inodes()) {
        errno = ENOSPC;
    } else {
        fd = REAL(openat)(dir, name, flags, mode);
        if (fd >= 0 && is_new) note('C', inode(fd), 0, 0, path, "", 0);
        else if (fd >= 0 && ours && (flags & O_TRUNC)) note('T', inode(fd), 0, 0, "", "", 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode); }

int rename(const char *from, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = absolute(AT_FDCWD, from, old) && absolute(AT_FDCWD, to, new);
    int result = REAL(rename)(from, to);
    if (result == 0 && ours) note('R', 0, 0, 0, old, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = absolute(dir, name, path);
    int result = REAL(unlinkat)(dir, name, flags);
    if (result == 0 && ours) note('U', 0, 0, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdir(const char *name, mode_t mode) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = absolute(AT_FDCWD, name, path), result = -1;
    if (ours && has_no_inodes()) {
        errno = ENOSPC;
    } else {
        result = REAL(mkdir)(name, mode);
        if (result == 0 && ours) note('M', 0, 0, 0, path, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* What is copied inside the kernel would not be seen: the caller falls back to reading and writing. */
ssize_t copy_file_range(int in, off64_t *from, int to, off64_t *at, size_t len, unsigned flags) {
    (void)in, (void)from, (void)to, (void)at, (void)len, (void)flags;
    errno = ENOSYS;
    return -1;
}
