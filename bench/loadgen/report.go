package main

import (
	"math"
	"sort"
	"strconv"
)

// report is what one offered load led to. Everything that was due is in exactly one of ok, errors, unfinished, unsent.
type report struct {
	OfferedPerSecond  float64            `json:"offered_per_second"`
	AchievedPerSecond float64            `json:"achieved_per_second"` // good answers within the seconds of the load
	Seconds           float64            `json:"seconds"`             // of the load; up to the last arrival when the count ended it
	Due               int                `json:"due"`
	Sent              int                `json:"sent"`
	OK                int                `json:"ok"`
	Errors            map[string]int     `json:"errors"` // by status, or "grpc-" and that, or "connection", or "malformed"
	Unfinished        int                `json:"unfinished"`
	Unsent            int                `json:"unsent"`
	Reconnects        int                `json:"reconnects"`
	LatencyMS         map[string]float64 `json:"latency_ms"` // from the instant due; without an answer, its age at the end
	Histogram         []bucket           `json:"histogram"`
	OwnCPUSeconds     float64            `json:"own_cpu_seconds"`
	StartedAt         float64            `json:"started_at"`  // seconds since 1970
	InDeadline        int                `json:"in_deadline"` // good answers within -deadline-seconds of the instant due
	Slots             []slot             `json:"slots"`       // of -slot-seconds each, from the start on
	Seed              int64              `json:"seed"`
	Connections       int                `json:"connections"`
}

// bucket counts latencies up to `le_ms` and above the bucket before.
type bucket struct {
	UpToMS float64 `json:"le_ms"`
	Count  int     `json:"count"`
}

// slot counts the requests that were due in one part of the load, and those of them with a good answer in time.
type slot struct {
	Due        int `json:"due"`
	InDeadline int `json:"in_deadline"`
}

// newSlots has a schedule by slots of so many seconds up to the last that is due; none when they have no length.
func newSlots(schedule []int64, seconds float64) []slot {
	slots := []slot{}
	if seconds <= 0 {
		return slots
	}
	for _, due := range schedule {
		place := slotOf(due, seconds)
		for len(slots) <= place {
			slots = append(slots, slot{})
		}
		slots[place].Due++
	}
	return slots
}

// countInDeadline counts a good answer in time, where there are slots.
func countInDeadline(slots []slot, due int64, seconds float64) {
	if len(slots) > 0 {
		slots[slotOf(due, seconds)].InDeadline++
	}
}

func slotOf(due int64, seconds float64) int { return int(float64(due) / 1e9 / seconds) }

func (r *report) failed() int {
	total := 0
	for _, count := range r.Errors {
		total += count
	}
	return total
}

// describe fills in what follows from the latencies (nanoseconds).
func (r *report) describe(latencies []int64) {
	r.LatencyMS = map[string]float64{}
	r.Histogram = []bucket{}
	if len(latencies) == 0 {
		return
	}
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	for _, percent := range []float64{50, 90, 95, 99, 99.9} {
		r.LatencyMS["p"+strconv.FormatFloat(percent, 'f', -1, 64)] = milliseconds(percentile(latencies, percent))
	}
	r.LatencyMS["max"] = milliseconds(latencies[len(latencies)-1])
	r.Histogram = histogram(latencies)
}

// percentile takes the nearest rank of sorted values.
func percentile(sorted []int64, percent float64) int64 {
	rank := int(math.Ceil(float64(len(sorted)) * percent / 100))
	return sorted[max(rank, 1)-1]
}

// histogram has four buckets to each doubling, so a bound is off by 19 % at most.
func histogram(sorted []int64) []bucket {
	var buckets []bucket
	bound, index := 50e3, 0
	for index < len(sorted) {
		start := index
		for index < len(sorted) && float64(sorted[index]) <= bound {
			index++
		}
		if index > start {
			buckets = append(buckets, bucket{UpToMS: milliseconds(int64(bound)), Count: index - start})
		}
		bound *= math.Pow(2, 0.25)
	}
	return buckets
}

func milliseconds(nanoseconds int64) float64 {
	return math.Round(float64(nanoseconds)/1e3) / 1e3
}
