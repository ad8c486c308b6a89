/*
 * Calls that fail on demand: the page of memory by which a test controls test/fault/fault.c, and
 * sees what that did. It is shared by all processes that have the library; a test in Python writes
 * it through its file (test/integration/faults.py has the same offsets).
 */
#ifndef BOUGH_TEST_FAULT_H
#define BOUGH_TEST_FAULT_H

#include <stdatomic.h>
#include <stdint.h>

#define FAULT_PAGE 4096
#define FAULT_CALL(call) (UINT32_C(1) << (call))

typedef enum fault_call { /* the same numbers are in faults.py */
                          FAULT_OPEN,
                          FAULT_READ,
                          FAULT_WRITE,
                          FAULT_SYNC,
                          FAULT_RENAME,
                          FAULT_LINK,
                          FAULT_UNLINK,
                          FAULT_MKDIR,
                          FAULT_TRUNCATE,
                          FAULT_ALLOCATE,
                          FAULT_MMAP,
                          FAULT_XATTR,
                          FAULT_LIST,
                          FAULT_MALLOC,
                          FAULT_CALLS
} fault_call;

typedef enum fault_mode {
    FAULT_NONE,
    FAULT_COUNT, /* nothing fails; `seen` counts */
    FAULT_ONCE,  /* the nth fails */
    FAULT_ON,    /* the nth and all that follow */
    FAULT_SHORT  /* the nth read or write does half of what it was asked for */
} fault_mode;

typedef struct fault_page {
    _Atomic uint32_t mode; /* written last */
    uint32_t calls;        /* FAULT_CALL() of those that are meant */
    int32_t error;
    uint32_t unused;
    int64_t nth; /* from 1 */
    _Atomic int64_t seen, fired;
    char program[32]; /* patterns as fnmatch() has them: the program's short name, */
    char thread[32];  /* the thread's name, */
    char path[256];   /* and the file's path as it was given, or of the descriptor */
    /* what fired first */
    uint32_t fired_call;
    int32_t fired_pid;
    char fired_path[512];
} fault_page;

/* Of this process; NULL where no test has one. Within a program that is linked with fault.c. */
extern fault_page *fault_control;

#endif
