/*
 * Confinement with Landlock, ABI 1 to 7: what a kernel does not know is left out of the rule set.
 *
 * The constants are spelt out because the headers of the build machine are often older than its
 * kernel; they are part of the kernel's ABI (include/uapi/linux/landlock.h).
 */
#include "pg/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pg/compute.h"
#include "util/error.h"
#include "util/fs.h"
#include "util/log.h"

#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#define __NR_landlock_add_rule 445
#define __NR_landlock_restrict_self 446
#endif

enum { CREATE_VERSION = 1, RULE_PATH_BENEATH = 1 };

#define FS(bit) (UINT64_C(1) << (bit))
#define FS_EXECUTE FS(0)
#define FS_WRITE_FILE FS(1)
#define FS_READ_FILE FS(2)
#define FS_READ_DIR FS(3)
#define FS_MAKE_CHAR FS(6)
#define FS_MAKE_BLOCK FS(11)
#define FS_REFER FS(13)
#define FS_TRUNCATE FS(14)
#define FS_IOCTL_DEV FS(15)
#define FS_FIRST_ABI (FS(13) - 1)
#define NET_TCP (FS(0) | FS(1))
#define SCOPE_SOCKETS_AND_SIGNALS (FS(0) | FS(1))

/* Rights that make sense on something that is not a directory; others are refused by the kernel. */
#define FS_OF_FILES (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

#define READ (FS_READ_FILE | FS_READ_DIR)
#define READ_AND_RUN (READ | FS_EXECUTE)

struct ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

struct path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

/* What every program needs to start; all of it is the system's, readable by everyone. Not the whole
   of /etc: a package may keep there what only the user postgres can read. */
static const char *const system_run[] = {"/usr", "/lib",  "/lib64",    "/lib32",
                                         "/bin", "/sbin", "/nix/store"};
static const char *const system_read[] = {"/etc/ld.so.cache",
                                          "/etc/ld.so.conf",
                                          "/etc/ld.so.conf.d",
                                          "/etc/ld.so.preload",
                                          "/etc/localtime",
                                          "/etc/timezone",
                                          "/etc/passwd",
                                          "/etc/group",
                                          "/etc/nsswitch.conf",
                                          "/etc/hosts",
                                          "/etc/host.conf",
                                          "/etc/resolv.conf",
                                          "/etc/gai.conf",
                                          "/etc/services",
                                          "/etc/protocols",
                                          "/etc/ssl/openssl.cnf",
                                          "/etc/ssl/certs",
                                          "/etc/pki/tls/openssl.cnf",
                                          "/etc/crypto-policies",
                                          "/etc/alternatives",
                                          "/etc/locale.alias",
                                          "/etc/perl",
                                          "/var/cache/postgresql/dicts",
                                          "/sys/devices/system/cpu"};
static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"};

int bough_landlock_abi(void) {
    long abi = syscall(__NR_landlock_create_ruleset, NULL, (size_t)0, CREATE_VERSION);
    return abi < 0 ? 0 : (int)abi;
}

/* Allow `access` below `path`. A missing path is an error only when it is required. */
static int allow(int ruleset, const char *path, uint64_t access, bool required, bough_error *err) {
    int fd = bough_open(path, O_PATH | O_CLOEXEC, 0);
    if (fd < 0)
        return required ? bough_fail_sys(err, errno,
                                         "could not open \"%s\" to confine a compute to it", path)
                        : BOUGH_OK;
    int rc = BOUGH_OK;
    struct stat st;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode)) access &= FS_OF_FILES;
    struct path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    if (syscall(__NR_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) != 0)
        rc = bough_fail_sys(err, errno, "could not add a confinement rule for \"%s\"", path);
    close(fd);
    return rc;
}

static int allow_list(int ruleset, const char *const *paths, uint64_t access, bough_error *err) {
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && paths && paths[i]; i++)
        rc = allow(ruleset, paths[i], access, true, err);
    return rc;
}

static int allow_system(int ruleset, uint64_t handled, bough_error *err) {
    int rc = BOUGH_OK;
    for (size_t i = 0; !rc && i < sizeof system_run / sizeof *system_run; i++)
        rc = allow(ruleset, system_run[i], READ_AND_RUN, false, err);
    for (size_t i = 0; !rc && i < sizeof system_read / sizeof *system_read; i++)
        rc = allow(ruleset, system_read[i], READ, false, err);
    uint64_t device = (READ | FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV) & handled;
    for (size_t i = 0; !rc && i < sizeof devices / sizeof *devices; i++)
        rc = allow(ruleset, devices[i], device, false, err);
    return rc;
}

/* Only what an installation consists of: its parent directory could be somebody's home. */
static int allow_installation(int ruleset, const char *bindir, bough_error *err) {
    static const char *const parts[] = {"lib", "lib64", "share", "libexec"};
    int rc = allow(ruleset, bindir, READ_AND_RUN, true, err);
    for (size_t i = 0; !rc && i < sizeof parts / sizeof *parts; i++) {
        char path[BOUGH_PATH_MAX];
        rc = bough_path(path, sizeof path, err, "%s/../%s", bindir, parts[i]);
        if (!rc) rc = allow(ruleset, path, READ_AND_RUN, false, err);
    }
    return rc;
}

int bough_landlock_prepare(int *ruleset, const bough_landlock_rules *rules, bough_error *err) {
    static atomic_flag told = ATOMIC_FLAG_INIT;
    *ruleset = -1;
    int abi = bough_landlock_abi();
    if (abi == 0) {
        if (!atomic_flag_test_and_set(&told))
            bough_log(BOUGH_LOG_WARN,
                      "this kernel has no Landlock: computes run without confinement", NULL);
        return BOUGH_OK;
    }
    struct ruleset_attr attr = {.handled_access_fs = FS_FIRST_ABI};
    if (abi >= 2) attr.handled_access_fs |= FS_REFER;
    if (abi >= 3) attr.handled_access_fs |= FS_TRUNCATE;
    if (abi >= 4 && !rules->allow_network) attr.handled_access_net = NET_TCP;
    if (abi >= 5) attr.handled_access_fs |= FS_IOCTL_DEV;
    if (abi >= 6) attr.scoped = SCOPE_SOCKETS_AND_SIGNALS;
    long fd = syscall(__NR_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (fd < 0) return bough_fail_sys(err, errno, "could not make a confinement rule set");

    uint64_t handled = attr.handled_access_fs;
    uint64_t write = handled & ~(FS_EXECUTE | FS_MAKE_CHAR | FS_MAKE_BLOCK | FS_IOCTL_DEV);
    int rc = allow_system((int)fd, handled, err);
    if (!rc) rc = allow_installation((int)fd, rules->bindir, err);
    if (!rc) rc = allow_list((int)fd, rules->ro, READ, err);
    if (!rc) rc = allow_list((int)fd, rules->rw, write, err);
#ifdef BOUGH_CRASH_POINTS /* where a test build counts what it ran (dev/coverage) */
    const char *counters = getenv("BOUGH_TEST_COUNTERS");
    if (!rc && counters) rc = allow((int)fd, counters, write, true, err);
#endif
    if (rc)
        close((int)fd);
    else
        *ruleset = (int)fd;
    return rc;
}

int bough_landlock_enforce(int ruleset) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    if (ruleset < 0) return 0;
    return syscall(__NR_landlock_restrict_self, ruleset, 0) == 0 ? 0 : -1;
}
