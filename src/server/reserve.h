/**
 * Memory for libevent that does not run out at once. libevent's HTTP server crashes where it finds
 * none for a connection that it has just accepted, and all that goes through it would go with it.
 * So what it asks for in vain is asked for again when a reserve was given back, and the reserve is
 * taken anew as soon as there is memory: one failure, or a shortage that passes, ends nothing. A
 * shortage that stays ends boughd, not the computes.
 */
#ifndef BOUGH_SERVER_RESERVE_H
#define BOUGH_SERVER_RESERVE_H

/** Give libevent its functions, and take the reserve. Before libevent is used for anything. */
void reserve_begin(void);

/** Take it anew where it was given back. Any thread; now and then. */
void reserve_refill(void);

#endif
