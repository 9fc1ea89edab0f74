//! Whole-platform tests; see `platform/`. This library is empty: the tests are one binary, because
//! each links all of DataFusion.
