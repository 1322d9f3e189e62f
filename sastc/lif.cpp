// LIF on the CPU (Eq. 9-11): the kernels of neurons.py for (T, N) rows, bit for bit. Built on the spot by native.py.
// A block of neurons stays in the first cache over all time steps; the compiler vectorises the inner loops. Every
// operation rounds once (-ffp-contract=off), as torch's do one after the other.
#include <cstdint>
#include <cstring>
#include <vector>

constexpr long BLOCK = 1024;
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

// Potentials (T, BLOCK) of the neurons from `start` on, into `us`.
template <class S>
static inline void membranes(const S* x, const float* v0, float* us, long T, long N, long start, long count,
                             const Options& p) {
    float v[BLOCK], buffer[BLOCK];
    for (long t = 0; t < T; t++) {
        const float* in = read(x + t * N + start, buffer, count);
        float* u = us + t * BLOCK;
        if (t == 0 && !v0) {
#pragma omp simd
            for (long n = 0; n < count; n++) u[n] = in[n];
        } else {
            const float* before = t ? v : v0 + start;
#pragma omp simd
            for (long n = 0; n < count; n++) u[n] = in[n] + p.decay * before[n];
        }
        if (p.soft) {
#pragma omp simd
            for (long n = 0; n < count; n++) v[n] = u[n] - p.threshold * (u[n] > p.threshold ? 1.f : 0.f);
        } else {
#pragma omp simd
            for (long n = 0; n < count; n++) v[n] = u[n] * (1.f - (u[n] > p.threshold ? 1.f : 0.f));
        }
    }
}

template <class S>
static void spikes(const S* x, const float* v0, S* out, long T, long N, const Options& p, int threads) {
#pragma omp parallel num_threads(threads) if (T * N > SERIAL)
    {
        std::vector<float> us(T * BLOCK);
        float buffer[BLOCK];
#pragma omp for
        for (long start = 0; start < N; start += BLOCK) {
            const long count = N - start < BLOCK ? N - start : BLOCK;
            membranes(x, v0, us.data(), T, N, start, count, p);
            for (long t = 0; t < T; t++) {
                const float* u = &us[t * BLOCK];
                S* to = out + t * N + start;
                float* o = place(to, buffer);
#pragma omp simd
                for (long n = 0; n < count; n++) o[n] = u[n] > p.threshold ? 1.f : 0.f;
                store(to, o, count);
            }
        }
    }
}

template <class S, int SURROGATE>
static void gradients(const S* x, const float* v0, const S* g, S* dx, float* dv, long T, long N, const Options& p,
                      int threads) {
#pragma omp parallel num_threads(threads) if (T * N > SERIAL)
    {
        std::vector<float> us(T * BLOCK);
#pragma omp for
        for (long start = 0; start < N; start += BLOCK) {
            const long count = N - start < BLOCK ? N - start : BLOCK;
            membranes(x, v0, us.data(), T, N, start, count, p);
            float later[BLOCK], coming[BLOCK], going[BLOCK];  // gradient of the potential after the reset; buffers
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
                        float through = p.soft ? 1.f : 1.f - (u > p.threshold ? 1.f : 0.f);
                        if (!p.detach) through = through - slope * (p.soft ? p.threshold : u);
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

#define SPIKES(name, S)                                                                                              \
    void name(const S* x, const float* v0, S* out, long T, long N, const Options* p, int threads) {                  \
        spikes(x, v0, out, T, N, *p, threads);                                                                       \
    }
#define GRADIENTS(name, S)                                                                                           \
    void name(const S* x, const float* v0, const S* g, S* dx, float* dv, long T, long N, const Options* p,           \
              int threads) {                                                                                         \
        auto run = p->surrogate == TRIANGLE    ? gradients<S, TRIANGLE>                                              \
                   : p->surrogate == RECTANGLE ? gradients<S, RECTANGLE>                                             \
                                               : gradients<S, ATAN>;                                                 \
        run(x, v0, g, dx, dv, T, N, *p, threads);                                                                    \
    }

extern "C" {
SPIKES(spikes_float32, float)
SPIKES(spikes_bfloat16, uint16_t)
GRADIENTS(gradients_float32, float)
GRADIENTS(gradients_bfloat16, uint16_t)
}
