/* Where choices come from. See model.h. */
#include "model.h"

model_source model_of_seed(uint64_t seed) {
    return (model_source){.random = seed};
}

model_source model_of_bytes(const uint8_t *data, size_t size) {
    static const uint8_t nothing[1];
    return (model_source){.at = size ? data : nothing, .end = size ? data + size : nothing};
}

bool model_is_at_end(const model_source *s) {
    return s->is_out || (s->at && s->at == s->end);
}

static uint64_t mixed(uint64_t *state) { /* splitmix64 (Steele, Lea and Flood, 2014) */
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t taken(model_source *s, size_t bytes) {
    uint64_t value = 0;
    if ((size_t)(s->end - s->at) < bytes) {
        s->at = s->end;
        s->is_out = true;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) value |= (uint64_t)*s->at++ << (8 * i);
    return value;
}

uint64_t model_random(model_source *s) {
    uint64_t any = mixed(&s->random);
    return s->at ? (any & ~UINT64_C(0xff)) | taken(s, 1) : any;
}

uint64_t model_below(model_source *s, uint64_t n) {
    if (!s->at) return mixed(&s->random) % n;
    return taken(s, n <= 256 ? 1 : n <= 65536 ? 2 : 4) % n;
}
