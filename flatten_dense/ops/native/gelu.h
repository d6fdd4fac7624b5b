// The exact GELU.
#pragma once

#include "vector.h"

// x (1 + erf(x / sqrt 2)) / 2. The polynomial in u = 2 z^2 / edge^2 - 1 was fitted to erf(z / sqrt 2) / z on [0, edge], to
// be 1 / edge at the edge: so the tail is 0. What is made of it errs by 1.3e-7 |x|. A quotient needs fewer terms, but a
// division takes longer than they do.
static inline vf gelu(vf x) {
    static const float terms[] = {2.667851150e-01f,  -1.330369413e-01f, 9.852813184e-02f,  -7.918016613e-02f,
                                  6.416326016e-02f,  -5.057472736e-02f, 3.781900555e-02f,  -2.645838261e-02f,
                                  1.777254790e-02f,  -1.153159421e-02f, 6.063270848e-03f,  -2.344132634e-03f,
                                  1.642490854e-03f,  -1.476443023e-03f, 5.077958340e-04f};
    const float edge = 5.3f;
    vf z = clamp(x, edge), u = z * z * (2 / (edge * edge)) - 1, erf = splat(terms[14]);
#pragma GCC unroll 14
    for (int i = 13; i >= 0; i--) erf = erf * u + terms[i];
    vf half = x * 0.5f;
    return half + half * (z * erf);
}
