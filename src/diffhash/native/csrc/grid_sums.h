/* A grid's features at fixed points, and back, LANES at a time; included once for each LANES. */
#define JOIN(name, n) name##_##n
#define OF_LANES(name, n) JOIN(name, n)

typedef REAL OF_LANES(Lanes, LANES)
    __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define Lanes OF_LANES(Lanes, LANES)

/* The jet of a grid at a block of points, into rows of [K, block, ld]. */
static void OF_LANES(gather, LANES)(
    const Shape *s, const Grid *grid, const REAL *table, int64_t start, int64_t ld, REAL *out) {
    const int64_t n = minimum(s->block, s->n_points - start), K = s->n_rows;
    const int64_t L = grid->n_levels, F = grid->n_features, T = grid->n_taps;
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = 0; l < L; l++) {
            const uint32_t *rows = grid->rows + ((start + i) * L + l) * T;
            const REAL *weights = grid->weights + ((start + i) * L + l) * K * T;
            for (int64_t k = 0; k < K; k++)
                for (int64_t f = 0; f < F; f += LANES) {
                    Lanes sum = {0};
                    for (int64_t v = 0; v < T; v++)
                        sum += weights[k * T + v] * *(const Lanes *)(table + rows[v] * F + f);
                    *(Lanes *)(out + (k * s->block + i) * ld + l * F + f) = sum;
                }
        }
}

/* Adds its transpose, of every `step`-th level from `first` on, to a table's gradient. An entry of
 * the table is read and written once: neighbouring points wait for each other. */
static void OF_LANES(scatter, LANES)(
    const Shape *s, const Grid *grid, int64_t first, int64_t step, const REAL *g, int64_t start,
    int64_t ld, REAL *table) {
    const int64_t n = minimum(s->block, s->n_points - start), K = s->n_rows;
    const int64_t L = grid->n_levels, F = grid->n_features, T = grid->n_taps;
    const int64_t stride = s->block * ld; /* of the jet's rows */
    for (int64_t i = 0; i < n; i++)
        for (int64_t l = first; l < L; l += step) {
            const int64_t at = (start + i) * L + l;
            const REAL *weights = grid->weights + at * K * T, *from = g + i * ld + l * F;
            for (int64_t v = 0; v < T; v++)
                for (int64_t f = 0; f < F; f += LANES) {
                    Lanes *to = (Lanes *)(table + grid->rows[at * T + v] * F + f), sum = *to;
                    for (int64_t k = 0; k < K; k++)
                        sum += weights[k * T + v] * *(const Lanes *)(from + k * stride + f);
                    *to = sum;
                }
        }
}

#undef Lanes
#undef OF_LANES
#undef JOIN
#undef LANES
