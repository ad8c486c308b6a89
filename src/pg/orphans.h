/**
 * What a postmaster that was killed leaves behind: its backends, which go on for a while, and
 * write. Any thread.
 */
#ifndef BOUGH_PG_ORPHANS_H
#define BOUGH_PG_ORPHANS_H

#include <stdbool.h>

#include "bough/error.h"

/**
 * End every postgres process that works in a PGDATA whose postmaster is gone, and wait until they
 * have ended. Then its System V shared memory goes, by which a postmaster knows of another's
 * backends: the kernel has room for 4096 (SHMMNI) and keeps one until somebody removes it. A PGDATA
 * without postmaster.pid was left in order and has none of both: that is all that is looked at
 * then.
 *
 * @param pgdata      The caller knows that no compute of ours runs on it.
 * @retval BOUGH_E_TIMEOUT  Some are still there after timeout_ms; nothing may use the PGDATA.
 */
BOUGH_CHECK int bough_orphans_end(const char *pgdata, int timeout_ms, bough_error *err);

/**
 * Whether the kernel still has the shared memory of a postgres that has ended: after a restart of
 * the machine it has not, and no backends either. Costs next to nothing, unlike the above.
 */
bool bough_orphans_have_memory(const char *pgdata);

/**
 * End the tools that a killed server left running, with all that they started: every process whose
 * environment has BOUGH_RUN_MARK with this value. Returns when there is none.
 *
 * @retval BOUGH_E_TIMEOUT  Some are still there after timeout_ms.
 */
BOUGH_CHECK int bough_orphans_end_tools(const char *mark, int timeout_ms, bough_error *err);

#endif
