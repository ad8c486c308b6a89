/** Work that nobody asks for: stacks stay short, layers that nothing needs go. Worker threads. */
#ifndef BOUGH_SERVER_HOUSEKEEPING_H
#define BOUGH_SERVER_HOUSEKEEPING_H

#include "server/server.h"

/** Called by the clock: begins a round where none is under way and the last one was long enough
 * ago. */
void housekeeping_tick(server *srv);

#endif
