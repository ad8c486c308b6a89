/** A disk that runs full ends history before it ends branches. Worker threads. */
#ifndef BOUGH_SERVER_SPACE_H
#define BOUGH_SERVER_SPACE_H

#include "server/server.h"

/**
 * Called by the clock: while less than a reserve is free, the oldest history goes, restore point by
 * restore point, of all branches but snapshots. Never what a branch needs to start.
 */
void space_tick(server *srv);

#endif
