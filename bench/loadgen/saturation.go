package main

// growth is how much more each step of -max offers than the one before.
const growth = 1.4

// saturation is what -max found: the most good answers a second in any step without an error.
type saturation struct {
	PerSecond     float64   `json:"saturation_per_second"`
	Reached       bool      `json:"reached"` // false: the time or the rate ran out first, so it can do more
	Steps         []*report `json:"steps"`
	OwnCPUSeconds float64   `json:"own_cpu_seconds"`
}

// findMax steps the rate up until the server falls behind or refuses, twice in a row at the same rate.
func findMax(options options) (*saturation, error) {
	result := &saturation{}
	rate, misses := options.rate, 0
	steps := int(options.maxSeconds / options.stepSeconds)
	for step := 0; step < steps && rate <= 200_000; step++ {
		report, err := offer(options, rate, options.stepSeconds, options.seed+int64(step))
		if err != nil {
			return nil, err
		}
		result.Steps = append(result.Steps, report)
		result.OwnCPUSeconds += report.OwnCPUSeconds
		if report.failed() == 0 {
			result.PerSecond = max(result.PerSecond, report.AchievedPerSecond)
		}
		if keptUp(report) {
			rate, misses = rate*growth, 0
			continue
		}
		// One miss may be the machine's: a neighbour's burst, a cold start.
		if misses++; misses == 2 {
			result.Reached = true
			return result, nil
		}
	}
	return result, nil
}

func keptUp(r *report) bool {
	return r.failed() == 0 && r.AchievedPerSecond >= 0.95*r.OfferedPerSecond
}
