/* The update rule of section 5 in one pass over memory, for training/optimiser.py. */

#include <math.h>
#include <stdint.h>

/* a * b + c as torch's vectors have it: rounded once where the processor can. */
static inline float plus_product(float a, float b, float c)
{
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* v <- momentum v - decay w - rate g, then w <- w + v, rounded like the four tensor operations that do the same. `decay` is
   weight decay times rate; 0 leaves its term out. */
void update_weights(float *restrict weights, float *restrict velocities, const float *restrict gradients, int64_t n,
                    float momentum, float decay, float rate)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float v = velocities[i] * momentum;
        if (decay != 0)
            v = plus_product(weights[i], -decay, v);
        v = plus_product(gradients[i], -rate, v);
        velocities[i] = v;
        weights[i] += v;
    }
}
