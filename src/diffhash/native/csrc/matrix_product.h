/* Matrix products of blocks that stay in the cache, in register tiles. Compiled for one REAL. */
#pragma once
#include <stdint.h>

/* A register tile is TILE rows by two vectors, or by WIDEST vectors, as many as registers allow, if
 * an odd number of vectors remains. Of 16 registers, 12 are for sums: with fewer sums, additions
 * would wait for earlier results. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE 8
#define WIDEST 3
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE 6
#define WIDEST 2
#else
#define VECTOR_BYTES 16
#define TILE 6
#define WIDEST 2
#endif
#define V ((int64_t)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL Vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

static int64_t padded(int64_t n) { return (n + V - 1) / V * V; }

#define INLINE static inline __attribute__((always_inline))

/* C[rows, cols·V] (+)= A B, where A[i, k] is at a[i·ai + k·ak]. */
INLINE void tile(
    const int rows, const int cols, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc, const int add) {
    Vector sum[TILE][WIDEST];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < cols; j++) {
            if (add) sum[i][j] = *(const Vector *)(c + i * ldc + j * V);
            else sum[i][j] = (Vector){0};
        }
    for (int64_t k = 0; k < K; k++) {
        Vector bs[WIDEST];
#pragma GCC unroll 3
        for (int j = 0; j < cols; j++) bs[j] = *(const Vector *)(b + k * ldb + j * V);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const REAL x = a[i * ai + k * ak];
#pragma GCC unroll 3
            for (int j = 0; j < cols; j++) sum[i][j] += x * bs[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < cols; j++) *(Vector *)(c + i * ldc + j * V) = sum[i][j];
}

INLINE void columns(
    const int cols, int64_t M, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc, const int add) {
    int64_t i = 0;
    for (; i + TILE <= M; i += TILE)
        tile(TILE, cols, K, a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, add);
    for (; i + 4 <= M; i += 4) tile(4, cols, K, a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, add);
    for (; i < M; i++) tile(1, cols, K, a + i * ai, ai, ak, b, ldb, c + i * ldc, ldc, add);
}

/* C[M, N] (+)= A[M, K] B[K, N]; N in whole vectors. */
INLINE void product(
    int64_t M, int64_t N, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc, const int add) {
    int64_t j = 0;
    for (; j + 2 * V <= N && N - j != WIDEST * V; j += 2 * V)
        columns(2, M, K, a, ai, ak, b + j, ldb, c + j, ldc, add);
    if (N - j == WIDEST * V) {
        columns(WIDEST, M, K, a, ai, ak, b + j, ldb, c + j, ldc, add);
        return;
    }
    for (; j < N; j += V) columns(1, M, K, a, ai, ak, b + j, ldb, c + j, ldc, add);
}

static void multiply(
    int64_t M, int64_t N, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc) {
    product(M, N, K, a, ai, ak, b, ldb, c, ldc, 0);
}

static void multiply_add(
    int64_t M, int64_t N, int64_t K, const REAL *a, int64_t ai, int64_t ak, const REAL *b,
    int64_t ldb, REAL *c, int64_t ldc) {
    product(M, N, K, a, ai, ak, b, ldb, c, ldc, 1);
}

/* c[M, N] = A[M, K] W[N, K]^T for a small number N of outputs. */
static void dot_products(
    int64_t M, int64_t N, int64_t K, const REAL *restrict a, int64_t lda, const REAL *restrict w,
    REAL *restrict c, int64_t ldc) {
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            REAL sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t k = 0; k < K; k++) sum += a[i * lda + k] * w[j * K + k];
            c[i * ldc + j] = sum;
        }
}
