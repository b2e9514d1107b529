// Package trust owns the tests of what the whole, built daemon promises: each starts real processes on loopback, drives
// them by their local API alone, and puts hostile peers, legs and programs around them. It has no product code, and does
// not test parts from within: they have tests of their own.
package trust
