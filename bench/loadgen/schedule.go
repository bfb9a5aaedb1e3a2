package main

import "math/rand"

// newSchedule returns the instants, in nanoseconds from the start, at which requests are due: a Poisson process.
func newSchedule(seed int64, rate, seconds float64, count int) []int64 {
	random := rand.New(rand.NewSource(seed))
	expected := min(count, int(rate*seconds*1.1)+16)
	instants := make([]int64, 0, expected)
	at := random.ExpFloat64() / rate
	for at < seconds && len(instants) < count {
		instants = append(instants, int64(at*1e9))
		at += random.ExpFloat64() / rate
	}
	return instants
}
