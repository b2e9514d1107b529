// Package fuzz owns one test: every fuzzer of the house is fed very many inputs. What a fuzzer checks is its package's.
package fuzz
