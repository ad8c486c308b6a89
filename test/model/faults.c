/*
 * For the test build of the preload library: every system call of sys.h comes through here, and
 * the nth of those that change or open something is refused, cut short, or the last one.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "model.h"

#define EXPORT __attribute__((visibility("default")))

static int action, error_number;
static long countdown;
static bool has_fired;
static void (*meanwhile)(void);

long bough_faulty_syscall(long number, ...);
EXPORT void bough_fault_arm(int what, long nth, int err);
EXPORT bool bough_fault_fired(void);
EXPORT void bough_fault_meanwhile(void (*what)(void));

void bough_fault_arm(int what, long nth, int err) {
    action = what;
    countdown = nth;
    error_number = err;
    has_fired = false;
}

bool bough_fault_fired(void) {
    return has_fired;
}

/* What somebody else does while the call is under way that fails; NULL for nothing. */
void bough_fault_meanwhile(void (*what)(void)) {
    meanwhile = what;
}

static bool counts(long number) {
    static const long list[] = {SYS_openat,    SYS_pwrite64,  SYS_pwritev,   SYS_write,
                                SYS_pread64,   SYS_preadv,    SYS_ftruncate, SYS_fallocate,
                                SYS_fsync,     SYS_fdatasync, SYS_unlinkat,  SYS_mkdirat,
                                SYS_symlinkat, SYS_renameat2, SYS_dup3};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (list[i] == number) return true;
    return false;
}

/* It takes six arguments, whatever was passed: a sanitizer may not look at where the rest is. */
__attribute__((no_sanitize_address)) long bough_faulty_syscall(long number, ...) {
    va_list ap;
    long a[6];
    va_start(ap, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(ap, long);
    va_end(ap);
    if (action != FAULT_OFF && counts(number) && --countdown == 0) {
        has_fired = true;
        if (meanwhile) meanwhile();
        if (action == FAULT_KILL) (void)kill(getpid(), SIGKILL);
        if (action == FAULT_FAIL) {
            errno = error_number;
            return -1;
        }
        if (action == FAULT_PASS) return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        /* a short write or read */
        if ((number == SYS_pwrite64 || number == SYS_pread64 || number == SYS_write) && a[2] > 1)
            a[2] /= 2;
        else
            has_fired = false;
    }
    return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
