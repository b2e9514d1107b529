// Package lab owns the tests of real daemons on real networks: each person sits in a network namespace of its own, at home
// behind a router that translates addresses, or in public, and what is shown is who hears whom and by which path. It has no
// product code. It needs Linux and root; without them it says so and tests nothing, but under CI=true that is a failure.
//
// Namespaces have no names and processes end with their standard input, so whatever becomes of a test, nothing of it stays.
// With BALAI_SOAK=1 the long versions run.
package lab
