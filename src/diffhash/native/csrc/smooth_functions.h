/* exp, tanh, sin, cos and log(1 + e^x) that compilers vectorise, to a few units in the last place;
 * erf is the C library's.
 *
 * NaN gives NaN. Arguments are reduced by the method of Cody and Waite; on the reduced range a
 * Taylor series is used that is long enough for the type.
 */
#include <math.h>
#include <stdint.h>

#if REAL_BITS == 32
typedef int32_t Bits;
#define MANTISSA 23
#define EXPONENT_BIAS 127
#define INTEGER_SHIFT 12582912.0f /* 1.5 · 2^23: adding it leaves an integer in the low bits */
#define EXP_LIMIT 87.0f
#define ONE_BEYOND 10.0f /* tanh is 1 to round-off */
#define LN2_HIGH 0.693145751953125f
#define LN2_LOW 1.428606765330187045e-06f
#define HALF_PI_1 1.5703125f /* few bits each, so that multiples are exact with or without FMA */
#define HALF_PI_2 4.837512969970703125e-04f
#define HALF_PI_3 7.549533620476722717e-08f
#define HALF_PI_4 2.563344151594518788e-12f
#define SINE_LIMIT 6000.0f
#define erf_ erff
#define LOG_TERMS 7 /* 9^-7 / 15 is below round-off */
#define sin_libm sinf
#define cos_libm cosf
#else
typedef int64_t Bits;
#define MANTISSA 52
#define EXPONENT_BIAS 1023
#define INTEGER_SHIFT 6755399441055744.0 /* 1.5 · 2^52 */
#define EXP_LIMIT 708.0
#define ONE_BEYOND 20.0
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define HALF_PI_1 1.57079632673412561417e+00
#define HALF_PI_2 6.07710050630396597660e-11
#define HALF_PI_3 2.02226624871116645580e-21
#define HALF_PI_4 8.47842766036889956997e-32
#define SINE_LIMIT 1.0e6
#define erf_ erf
#define LOG_TERMS 15
#define sin_libm sin
#define cos_libm cos
#endif

static inline REAL as_real(Bits bits) {
    REAL value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

static inline Bits as_bits(REAL value) {
    Bits bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline REAL abs_(REAL x) { return x < 0 ? -x : x; }

/* e^r - 1 for |r| <= ln(2)/2. */
static inline REAL expm1_series(REAL r) {
#if REAL_BITS == 32
    REAL p = (REAL)(1.0 / 5040);
#else
    REAL p = (REAL)(1.0 / 6227020800.0);
    p = p * r + (REAL)(1.0 / 479001600);
    p = p * r + (REAL)(1.0 / 39916800);
    p = p * r + (REAL)(1.0 / 3628800);
    p = p * r + (REAL)(1.0 / 362880);
    p = p * r + (REAL)(1.0 / 40320);
    p = p * r + (REAL)(1.0 / 5040);
#endif
    p = p * r + (REAL)(1.0 / 720);
    p = p * r + (REAL)(1.0 / 120);
    p = p * r + (REAL)(1.0 / 24);
    p = p * r + (REAL)(1.0 / 6);
    p = p * r + (REAL)0.5;
    return r + r * r * p;
}

/* x = n ln 2 + r: *power = 2^n, and e^r - 1. */
static inline REAL exp_parts(REAL x, REAL *power) {
    const REAL shifted = x * (REAL)1.44269504088896340736 + INTEGER_SHIFT;
    const REAL n = shifted - INTEGER_SHIFT;
    const Bits exponent = as_bits(shifted) - as_bits(INTEGER_SHIFT) + EXPONENT_BIAS;
    *power = as_real((Bits)((uint64_t)exponent << MANTISSA));
    return expm1_series((x - n * LN2_HIGH) - n * LN2_LOW);
}

static inline REAL exp_(REAL x) {
    x = x < -EXP_LIMIT ? -EXP_LIMIT : x;
    x = x > EXP_LIMIT ? EXP_LIMIT : x;
    REAL power;
    const REAL rest = exp_parts(x, &power);
    return power + power * rest;
}

static inline REAL tanh_(REAL x) {
    REAL y = abs_(x);
    y = y > ONE_BEYOND ? ONE_BEYOND : y;
    REAL power;
    const REAL rest = exp_parts(2 * y, &power);
    const REAL e = power * rest + (power - 1); /* e^2y - 1 */
    const REAL t = e / (e + 2);
    return x < 0 ? -t : t;
}

static inline REAL sigmoid_(REAL x) { return 1 / (1 + exp_(-x)); }

/* log(1 + y) = 2 artanh t, t = y / (2 + y), for y in [0, 1], where t is at most 1/3. */
static inline REAL log1p_unit(REAL y) {
    const REAL t = y / (2 + y), square = t * t;
    REAL sum = (REAL)1 / (2 * LOG_TERMS + 1);
#pragma GCC unroll 16
    for (int k = LOG_TERMS - 1; k >= 0; k--) sum = sum * square + (REAL)1 / (2 * k + 1);
    return 2 * t * sum;
}

/* Written so that NaN gives NaN, and infinity gives infinity. */
static inline REAL softplus_(REAL x) { return (x < 0 ? 0 : x) + log1p_unit(exp_(-abs_(x))); }

/* Beyond this |z|, z sigmoid(z) and z Phi(z) are 0 or z, but 0 times infinity would be NaN. */
#define STRAIGHT_BEYOND ((REAL)1024)
static inline REAL not_below(REAL z) { return z < -STRAIGHT_BEYOND ? -STRAIGHT_BEYOND : z; }
static inline REAL within(REAL z) { return z > STRAIGHT_BEYOND ? STRAIGHT_BEYOND : z; }

static inline REAL normal_cdf_(REAL x) {
    return (REAL)0.5 * (1 + erf_(x * (REAL)0.70710678118654752440));
}

static inline REAL normal_pdf_(REAL x) {
    return (REAL)0.39894228040143267794 * exp_((REAL)-0.5 * x * x);
}

/* sin and cos, for |x| <= SINE_LIMIT. */
static inline void sine_and_cosine(REAL x, REAL *sine, REAL *cosine) {
    const REAL n = (x * (REAL)0.63661977236758134308 + INTEGER_SHIFT) - INTEGER_SHIFT;
    const REAL r = (((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3) - n * HALF_PI_4;
    const REAL s = r * r;
#if REAL_BITS == 32
    REAL p = (REAL)(1.0 / 362880), q = (REAL)(-1.0 / 3628800);
    q = q * s + (REAL)(1.0 / 40320);
#else
    REAL p = (REAL)(1.0 / 355687428096000.0), q = (REAL)(1.0 / 20922789888000.0);
    p = p * s - (REAL)(1.0 / 1307674368000.0);
    p = p * s + (REAL)(1.0 / 6227020800.0);
    p = p * s - (REAL)(1.0 / 39916800);
    p = p * s + (REAL)(1.0 / 362880);
    q = q * s - (REAL)(1.0 / 87178291200.0);
    q = q * s + (REAL)(1.0 / 479001600);
    q = q * s - (REAL)(1.0 / 3628800);
    q = q * s + (REAL)(1.0 / 40320);
#endif
    p = p * s - (REAL)(1.0 / 5040);
    p = p * s + (REAL)(1.0 / 120);
    p = p * s - (REAL)(1.0 / 6);
    q = q * s - (REAL)(1.0 / 720);
    q = q * s + (REAL)(1.0 / 24);
    q = q * s - (REAL)0.5;
    const REAL sin_r = r + r * s * p, cos_r = 1 + s * q;
    /* n modulo 4 */
    const REAL quarter = (n * (REAL)0.25 - (REAL)0.375 + INTEGER_SHIFT) - INTEGER_SHIFT;
    const REAL quadrant = n - 4 * quarter;
    const int odd = (quadrant == 1) | (quadrant == 3);
    const REAL a = odd ? cos_r : sin_r, b = odd ? sin_r : cos_r;
    *sine = quadrant >= 2 ? -a : a;
    *cosine = (quadrant == 1) | (quadrant == 2) ? -b : b;
}
