/* `grid_sums.h`, LANES features at a time; included once for each LANES. */
#define JOIN(name, n) name##_##n
#define OF_LANES(name, n) JOIN(name, n)

typedef REAL OF_LANES(Lanes, LANES)
    __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define Lanes OF_LANES(Lanes, LANES)

/* A few rows of a jet at once: an entry of the table is read once for all of them, and their sums
 * are independent. */
SUMS void OF_LANES(gather_rows, LANES)(
    const int n, const REAL *table, int64_t F, int64_t T, const uint32_t *rows,
    const REAL *weights, REAL *out, int64_t k_stride) {
    for (int64_t f = 0; f < F; f += LANES) {
        Lanes sums[MOST_ROWS] = {{0}};
        for (int64_t v = 0; v < T; v++) {
            const Lanes entry = *(const Lanes *)(table + rows[v] * F + f);
#pragma GCC unroll 8
            for (int k = 0; k < n; k++) sums[k] += weights[k * T + v] * entry;
        }
#pragma GCC unroll 8
        for (int k = 0; k < n; k++) *(Lanes *)(out + k * k_stride + f) = sums[k];
    }
}

SUMS void OF_LANES(gather, LANES)(
    const REAL *table, const Entries e, int64_t F, REAL *out, int64_t k_stride, int64_t i_stride) {
    const int64_t most = __builtin_constant_p(F) ? MOST_ROWS : 1; /* compiles in half the time */
    const int64_t n_groups = (e.K + most - 1) / most;
    for (int64_t i = 0; i < e.n; i++)
        for (int64_t l = 0; l < e.L; l++)
            for (int64_t group = 0; group < n_groups; group++) {
                const int64_t k = group * e.K / n_groups, end = (group + 1) * e.K / n_groups;
                const uint32_t *rows = e.rows + (i * e.L + l) * e.T;
                const REAL *weights = e.weights + ((i * e.L + l) * e.K + k) * e.T;
                REAL *to = out + k * k_stride + i * i_stride + l * F;
#define ROWS(n) OF_LANES(gather_rows, LANES)(n, table, F, e.T, rows, weights, to, k_stride)
                if (most == 1 || end - k == 1) ROWS(1);
                else if (end - k == 2) ROWS(2);
                else if (end - k == 3) ROWS(3);
                else ROWS(4);
#undef ROWS
            }
}

/* An entry of the table is read and written once, but neighbouring points depend on each other. */
SUMS void OF_LANES(scatter, LANES)(
    REAL *table, const Entries e, int64_t F, const REAL *g, int64_t k_stride, int64_t i_stride,
    int64_t first, int64_t step) {
    for (int64_t i = 0; i < e.n; i++)
        for (int64_t l = first; l < e.L; l += step) {
            const uint32_t *rows = e.rows + (i * e.L + l) * e.T;
            const REAL *weights = e.weights + (i * e.L + l) * e.K * e.T;
            const REAL *from = g + i * i_stride + l * F;
            for (int64_t v = 0; v < e.T; v++)
                for (int64_t f = 0; f < F; f += LANES) {
                    Lanes *to = (Lanes *)(table + rows[v] * F + f), sum = *to;
                    for (int64_t k = 0; k < e.K; k++)
                        sum += weights[k * e.T + v] * *(const Lanes *)(from + k * k_stride + f);
                    *to = sum;
                }
        }
}

#undef Lanes
#undef OF_LANES
#undef JOIN
#undef LANES
