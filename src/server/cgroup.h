/**
 * Limits of processor time and memory: one control group of the kernel (cgroups, version 2) for
 * each compute, where we may make them.
 *
 * BASE is boughd's own group when it starts, as systemd's Delegate=yes gives it; the parent of that
 * where it is called CGROUP_LEAF (DelegateSubgroup=); or "bough" in the kernel's root group, where
 * nothing else manages groups. Processes must not be in a group that hands out controllers, so
 * boughd itself goes into a leaf:
 *
 *   BASE/bough-server   boughd, poolers, and tools that it runs
 *   BASE/ENDPOINT       a compute; removed when it has ended
 *
 * Where any of it cannot be had, computes run without limits, and cgroup_why() says why. After
 * cgroup_open() nothing in a `cgroup` changes: any thread.
 */
#ifndef BOUGH_SERVER_CGROUP_H
#define BOUGH_SERVER_CGROUP_H

#include <stdbool.h>
#include <sys/types.h>

#include "util/error.h"
#include "util/fs.h"

/** The group of boughd itself. */
#define CGROUP_LEAF "bough-server"

typedef struct cgroup {
    bool has_cpu, has_memory; /**< what can be limited */
    bool is_test;             /**< plain files stand for the kernel's */
    char base[BOUGH_PATH_MAX];
    char why[256]; /**< why not both; "" */
} cgroup;

/**
 * Find our group and prepare it: as root, before root is given up, or as the user that it was
 * given to. Groups without processes that are left of an earlier server are removed.
 *
 * @param[out] group  Always usable.
 * @param test_base   NULL, or a directory that stands for our group, for tests.
 * @param uid, gid    Whose the group is to be.
 */
void cgroup_open(cgroup *group, const char *test_base, uid_t uid, gid_t gid);

/**
 * Make the group of a compute and set its limits: 1 processor and 4 GiB of memory for each compute
 * unit.
 *
 * @param[out] procs  Path of the file that takes its processes (bough_spawn_spec), BOUGH_PATH_MAX
 *                    bytes; "": it runs without limits, which has been logged where it is news.
 * @param quarters    Its size in quarters of a compute unit.
 */
void cgroup_begin(char *procs, const cgroup *group, const char *endpoint, int quarters);

/** Remove the group of a compute that has ended. One that is not there is success. */
void cgroup_end(const cgroup *group, const char *endpoint);

/* For cgroup_open(), and tests of it. */

/**
 * Where our group is in the file system.
 *
 * @param[out] out   BOUGH_PATH_MAX bytes.
 * @param mountinfo  As /proc/self/mountinfo, proc(5).
 * @param own        As /proc/self/cgroup, cgroups(7).
 * @return Whether it is below a mount of version 2.
 */
bool cgroup_find(char *out, const char *mountinfo, const char *own);

/** Whether a list as in cgroup.controllers has the name. */
bool cgroup_has(const char *list, const char *name);

#endif
