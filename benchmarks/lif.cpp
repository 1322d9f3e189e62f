// LIF of benchmarks/neuron.py by hand: one pass over (T, N) forward, one backward that recomputes the potentials.
// Blocks of neurons stay in the first cache over all time steps; their inner loops are vectorised by the compiler.
#include <cstdint>
#include <cstring>
#include <vector>

constexpr long BLOCK = 1024;

struct bf16 {
    uint16_t bits;
    operator float() const {
        uint32_t wide = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        return value;
    }
    bf16() = default;
    bf16(float value) {  // round to nearest even; no NaN here
        uint32_t wide;
        std::memcpy(&wide, &value, 4);
        bits = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    }
};

template <class S> void forward(const S* x, S* o, long T, long N, float decay, float threshold) {
#pragma omp parallel for
    for (long start = 0; start < N; start += BLOCK) {
        const long count = N - start < BLOCK ? N - start : BLOCK;
        float v[BLOCK] = {};
        for (long t = 0; t < T; t++) {
            const S* in = x + t * N + start;
            S* out = o + t * N + start;
#pragma omp simd
            for (long n = 0; n < count; n++) {
                const float u = float(in[n]) + decay * v[n], spike = u > threshold ? 1.f : 0.f;
                out[n] = S(spike);
                v[n] = u * (1 - spike);
            }
        }
    }
}

template <class S>
void backward(const S* x, const S* g, S* dx, long T, long N, float decay, float threshold, float gamma) {
#pragma omp parallel
    {
        std::vector<float> potentials(T * BLOCK);
#pragma omp for
        for (long start = 0; start < N; start += BLOCK) {
            const long count = N - start < BLOCK ? N - start : BLOCK;
            float v[BLOCK] = {}, through[BLOCK] = {};
            for (long t = 0; t < T; t++) {
                const S* in = x + t * N + start;
                float* us = &potentials[t * BLOCK];
#pragma omp simd
                for (long n = 0; n < count; n++) {
                    us[n] = float(in[n]) + decay * v[n];
                    v[n] = us[n] > threshold ? 0.f : us[n];
                }
            }
            for (long t = T - 1; t >= 0; t--) {
                const S* grad = g + t * N + start;
                S* out = dx + t * N + start;
                const float* us = &potentials[t * BLOCK];
#pragma omp simd
                for (long n = 0; n < count; n++) {
                    const float u = us[n], d = u - threshold, spike = d > 0 ? 1.f : 0.f, a = d < 0 ? -d : d;
                    const float slope = (gamma - a > 0 ? gamma - a : 0.f) / (gamma * gamma);
                    const float du = float(grad[n]) * slope + through[n] * ((1 - spike) - slope * u);
                    out[n] = S(du);
                    through[n] = decay * du;
                }
            }
        }
    }
}

extern "C" {
void forward_fp32(const float* x, float* o, long T, long N, float d, float v) { forward(x, o, T, N, d, v); }
void forward_bf16(const bf16* x, bf16* o, long T, long N, float d, float v) { forward(x, o, T, N, d, v); }
void backward_fp32(const float* x, const float* g, float* dx, long T, long N, float d, float v, float gamma) {
    backward(x, g, dx, T, N, d, v, gamma);
}
void backward_bf16(const bf16* x, const bf16* g, bf16* dx, long T, long N, float d, float v, float gamma) {
    backward(x, g, dx, T, N, d, v, gamma);
}
}
