/** Layers whose fsync failed are made durable after all (bough_store_mend()). Worker threads. */
#ifndef BOUGH_SERVER_MENDING_H
#define BOUGH_SERVER_MENDING_H

#include "server/server.h"

/** Called by the clock: begins to mend where something may be refused and the last attempt was long
 * enough ago. */
void mending_tick(server *srv);

#endif
