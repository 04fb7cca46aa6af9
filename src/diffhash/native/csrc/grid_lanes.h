/* `grid_sums.h`, LANES features at a time; included once for each LANES. */
#define JOIN(name, n) name##_##n
#define OF_LANES(name, n) JOIN(name, n)

typedef REAL OF_LANES(Lanes, LANES)
    __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define Lanes OF_LANES(Lanes, LANES)

SUMS void OF_LANES(gather, LANES)(
    const REAL *table, const Entries e, int64_t F, REAL *out, int64_t k_stride, int64_t i_stride) {
    for (int64_t i = 0; i < e.n; i++)
        for (int64_t l = 0; l < e.L; l++) {
            const uint32_t *rows = e.rows + (i * e.L + l) * e.T;
            const REAL *weights = e.weights + (i * e.L + l) * e.K * e.T;
            for (int64_t k = 0; k < e.K; k++)
                for (int64_t f = 0; f < F; f += LANES) {
                    Lanes sum = {0};
                    for (int64_t v = 0; v < e.T; v++)
                        sum += weights[k * e.T + v] * *(const Lanes *)(table + rows[v] * F + f);
                    *(Lanes *)(out + k * k_stride + i * i_stride + l * F + f) = sum;
                }
        }
}

/* An entry of the table is read and written once: neighbouring points wait for each other. */
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
