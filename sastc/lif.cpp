// LIF on the CPU (Eq. 9-11): the kernels of neurons.py for (T, N) rows, bit for bit. Built on the spot by native.py.
// A block of neurons stays in the first cache over all time steps; the compiler vectorises the inner loops. Every
// operation rounds once (-ffp-contract=off), as torch's do one after the other.
#include <cstdint>
#include <cstring>
#include <vector>

constexpr long BLOCK = 256;
constexpr long SERIAL = 1 << 15;  // fewer numbers than this are not worth waking threads for

typedef uint32_t __attribute__((may_alias)) word;

// A block's numbers as float32, and back; `buffer` is used where they are not float32 in memory.
static inline const float* read(const float* from, float*, long) { return from; }
static inline const float* read(const uint16_t* from, float* buffer, long count) {  // bfloat16
    word* words = reinterpret_cast<word*>(buffer);
#pragma omp simd
    for (long n = 0; n < count; n++) words[n] = word(from[n]) << 16;
    return buffer;
}
static inline float* place(float* to, float*) { return to; }
static inline float* place(uint16_t*, float* buffer) { return buffer; }
static inline void store(float*, const float*, long) {}
static inline void store(uint16_t* to, const float* buffer, long count) {  // round to nearest even
    const word* words = reinterpret_cast<const word*>(buffer);
#pragma omp simd
    for (long n = 0; n < count; n++) {
        const word w = words[n], rounded = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
        to[n] = (w & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;  // NaN stays NaN
    }
}

struct Options {
    float decay, threshold, gamma, divisor;  // of the triangle gamma², of the rectangle gamma / 2
    int surrogate, soft, detach;
};

enum { TRIANGLE, RECTANGLE, ATAN };

template <int SURROGATE> static inline float slope_of(float d, const Options& p) {
    const float a = d < 0 ? -d : d;
    if (SURROGATE == TRIANGLE) {
        const float height = -a + p.gamma;
        return (height < 0 ? 0.f : height) / p.divisor;
    }
    if (SURROGATE == RECTANGLE) return (a < p.divisor ? 1.f : 0.f) / p.gamma;
    const float q = 3.14159265358979323846f * d / p.gamma;
    return 1.f / (p.gamma * (1.f + q * q));
}

// Potential of a neuron from its input and from `v`, its potential after the last reset, which becomes that after the
// next; `o` is its spike.
template <bool SOFT> static inline float charge(float in, float& v, float& o, const Options& p) {
    const float u = in + p.decay * v;
    o = u > p.threshold ? 1.f : 0.f;
    v = SOFT ? u - p.threshold * o : u * (1.f - o);
    return u;
}

// Potentials of a block before the first step. A zero instead of none changes no spike and no gradient.
static inline void begin(const float* v0, float* v, long start, long count) {
    for (long n = 0; n < count; n++) v[n] = v0 ? v0[start + n] : 0.f;
}

// Options by value: behind a reference they could change with every number written, and would be read again.
template <class S, bool SOFT>
static void spikes(const S* x, const float* v0, S* out, long T, long N, const Options p, int threads) {
#pragma omp parallel for num_threads(threads) if (T * N > SERIAL)
    for (long start = 0; start < N; start += BLOCK) {
        const long count = N - start < BLOCK ? N - start : BLOCK;
        float v[BLOCK], coming[BLOCK], going[BLOCK];
        begin(v0, v, start, count);
        for (long t = 0; t < T; t++) {
            const float* in = read(x + t * N + start, coming, count);
            S* to = out + t * N + start;
            float* o = place(to, going);
#pragma omp simd
            for (long n = 0; n < count; n++) charge<SOFT>(in[n], v[n], o[n], p);
            store(to, o, count);
        }
    }
}

template <class S, int SURROGATE, bool SOFT>
static void gradients(const S* x, const float* v0, const S* g, S* dx, float* dv, long T, long N, const Options p,
                      int threads) {
#pragma omp parallel num_threads(threads) if (T * N > SERIAL)
    {
        std::vector<float> us(T * BLOCK);  // a block's potentials
#pragma omp for
        for (long start = 0; start < N; start += BLOCK) {
            const long count = N - start < BLOCK ? N - start : BLOCK;
            float v[BLOCK], coming[BLOCK], going[BLOCK], later[BLOCK], o;  // later: gradient of v
            begin(v0, v, start, count);
            for (long t = 0; t < T; t++) {
                const float* in = read(x + t * N + start, coming, count);
                float* u = &us[t * BLOCK];
#pragma omp simd private(o)
                for (long n = 0; n < count; n++) u[n] = charge<SOFT>(in[n], v[n], o, p);
            }
            for (long t = T - 1; t >= 0; t--) {
                const float* grad = read(g + t * N + start, coming, count);
                S* to = dx + t * N + start;
                float* out = place(to, going);
                const float* us_t = &us[t * BLOCK];
                const bool last = t == T - 1;
#pragma omp simd
                for (long n = 0; n < count; n++) {
                    const float u = us_t[n], slope = slope_of<SURROGATE>(u - p.threshold, p);
                    float du = grad[n] * slope;
                    if (!last) {  // dv/du = 1 - o - u do/du (hard) or 1 - V_th do/du (soft)
                        float through = SOFT ? 1.f : 1.f - (u > p.threshold ? 1.f : 0.f);
                        if (!p.detach) through = through - slope * (SOFT ? p.threshold : u);
                        du = du + later[n] * through;
                    }
                    out[n] = du;
                    later[n] = p.decay * du;
                }
                store(to, out, count);
            }
            if (dv) std::memcpy(dv + start, later, count * sizeof(float));
        }
    }
}

#define KERNELS(name, S)                                                                                             \
    void spikes_##name(const S* x, const float* v0, S* out, long T, long N, const Options* p, int threads) {         \
        (p->soft ? spikes<S, true> : spikes<S, false>)(x, v0, out, T, N, *p, threads);                               \
    }                                                                                                                \
    void gradients_##name(const S* x, const float* v0, const S* g, S* dx, float* dv, long T, long N,                 \
                          const Options* p, int threads) {                                                           \
        decltype(&gradients<S, TRIANGLE, false>) kernels[][2] = {                                                    \
            {gradients<S, TRIANGLE, false>, gradients<S, TRIANGLE, true>},                                           \
            {gradients<S, RECTANGLE, false>, gradients<S, RECTANGLE, true>},                                         \
            {gradients<S, ATAN, false>, gradients<S, ATAN, true>},                                                   \
        };                                                                                                           \
        kernels[p->surrogate][p->soft](x, v0, g, dx, dv, T, N, *p, threads);                                         \
    }

extern "C" {
KERNELS(float32, float)
KERNELS(bfloat16, uint16_t)
}
