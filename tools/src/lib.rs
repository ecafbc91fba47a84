//! Host side of EMBODIOS, as a library that the whole-system tests use too.
