// Command loadgen offers an open-loop load to an HTTP server on this machine and reports what came back as JSON.
//
// Arrivals are Poisson: they do not wait for answers, and a latency is counted from the instant at which its request
// was due, so a stalled server cannot hide its stall. Only loopback addresses are loaded, and private ones if need be.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

func main() {
	options, err := readOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(2)
	}
	answer, err := run(options)
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(options options) (any, error) {
	if options.printSchedule {
		return newSchedule(options.seed, options.rate, options.seconds, options.count), nil
	}
	if options.cpu >= 0 {
		if err := pin(options.cpu); err != nil {
			return nil, fmt.Errorf("pinning to CPU %d: %w", options.cpu, err)
		}
	}
	// One thread does everything; a collection would show as latency of the server, and a run is short.
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	if options.insistence.retries > 0 {
		return insist(options, options.rate, options.seconds, options.seed)
	}
	if options.findMax {
		return findMax(options)
	}
	return offer(options, options.rate, options.seconds, options.seed)
}

// options is what the command line said, checked.
type options struct {
	target        target
	insistence    insistence
	rate          float64
	seconds       float64
	count         int
	connections   int
	fresh         bool
	seed          int64
	cpu           int
	requests      [][]byte
	drainSeconds  float64
	deadline      float64
	slotSeconds   float64
	findMax       bool
	stepSeconds   float64
	maxSeconds    float64
	printSchedule bool
}

func readOptions(arguments []string) (options, error) {
	var result options
	var bodies, headers repeated
	var spoiled string
	flags := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	url := flags.String("target", "", "where to POST, such as http://127.0.0.1:8080/v1/moderate (loopback only)")
	private := flags.Bool("private", false, "let the target be a private address, such as a service of a cluster in here")
	flags.Float64Var(&result.rate, "rate", 100, "requests offered a second; with -max the rate of the first step")
	flags.Float64Var(&result.seconds, "seconds", 5, "how long requests are offered, at most 600")
	flags.IntVar(&result.count, "count", 1_000_000, "the most requests offered, at most 5000000")
	flags.IntVar(&result.connections, "connections", 64, "connections at most, which persist, 1 to 1024")
	flags.BoolVar(&result.fresh, "fresh", false, "send each request on a connection of its own, opened when it is due")
	flags.IntVar(&result.insistence.retries, "retries", 0, "make a request that is not answered well so often again, 0 to 10")
	flags.Float64Var(&result.insistence.wait, "retry-wait-seconds", 0.1, "with -retries: how long before that, on average")
	flags.StringVar(&spoiled, "spoiled-by", "", "with -retries: an answer with these bytes in it is not a good one")
	flags.Int64Var(&result.seed, "seed", 1, "seed of the arrivals")
	flags.IntVar(&result.cpu, "cpu", -1, "the CPU to stay on; -1 for any")
	flags.Var(&bodies, "body", "a file with a request body; may be given several times, and they take turns")
	lines := flags.String("lines", "", "a file with one request body a line; they take turns")
	flags.Var(&headers, "header", "a header, such as 'Content-Type: application/json'; may be given several times")
	flags.Float64Var(&result.drainSeconds, "drain-seconds", 2, "how long the last answers are waited for")
	flags.Float64Var(&result.deadline, "deadline-seconds", 0, "count good answers within so long of the instant due; with -retries each attempt is given up then, too")
	flags.Float64Var(&result.slotSeconds, "slot-seconds", 0, "count by slots of so long, too; a request is of the slot in which it is due")
	flags.BoolVar(&result.findMax, "max", false, "step the rate up until the server cannot follow")
	flags.Float64Var(&result.stepSeconds, "step-seconds", 1, "length of a step of -max")
	flags.Float64Var(&result.maxSeconds, "max-seconds", 30, "the longest that -max looks")
	flags.BoolVar(&result.printSchedule, "print-schedule", false, "print the arrivals in nanoseconds and load nothing")
	if err := flags.Parse(arguments); err != nil {
		return options{}, err
	}
	result.insistence.spoiled = []byte(spoiled)
	if err := result.check(); err != nil || result.printSchedule {
		return result, err
	}
	var err error
	if result.target, err = readTarget(*url, *private); err != nil {
		return options{}, err
	}
	result.requests, err = buildRequests(result.target, headers, bodies, *lines)
	return result, err
}

func (o options) check() error {
	switch {
	case !(o.rate > 0 && o.rate <= 200_000):
		return fmt.Errorf("-rate is %g; it must be above 0 and at most 200000", o.rate)
	case !(o.seconds > 0 && o.seconds <= 600):
		return fmt.Errorf("-seconds is %g; it must be above 0 and at most 600", o.seconds)
	case o.count < 1 || o.count > 5_000_000:
		return fmt.Errorf("-count is %d; it must be 1 to 5000000", o.count)
	case o.insistence.retries < 0 || o.insistence.retries > 10:
		return fmt.Errorf("-retries is %d; it must be 0 to 10", o.insistence.retries)
	case !(o.insistence.wait > 0 && o.insistence.wait <= 10):
		return fmt.Errorf("-retry-wait-seconds is %g; it must be above 0 and at most 10", o.insistence.wait)
	case o.connections < 1 || o.connections > 1024:
		return fmt.Errorf("-connections is %d; it must be 1 to 1024", o.connections)
	case !(o.drainSeconds >= 0 && o.drainSeconds <= 60):
		return fmt.Errorf("-drain-seconds is %g; it must be 0 to 60", o.drainSeconds)
	case !(o.deadline >= 0 && o.deadline <= 60):
		return fmt.Errorf("-deadline-seconds is %g; it must be 0 to 60", o.deadline)
	case !(o.slotSeconds == 0 || o.slotSeconds >= 0.01 && o.slotSeconds <= 60):
		return fmt.Errorf("-slot-seconds is %g; it must be 0, or 0.01 to 60", o.slotSeconds)
	case o.slotSeconds > 0 && o.deadline == 0:
		return fmt.Errorf("-slot-seconds needs -deadline-seconds")
	case o.insistence.retries > 0 && o.deadline == 0:
		return fmt.Errorf("-retries needs -deadline-seconds")
	case !(o.stepSeconds > 0 && o.stepSeconds <= 60):
		return fmt.Errorf("-step-seconds is %g; it must be above 0 and at most 60", o.stepSeconds)
	case !(o.maxSeconds > 0 && o.maxSeconds <= 600):
		return fmt.Errorf("-max-seconds is %g; it must be above 0 and at most 600", o.maxSeconds)
	}
	return nil
}

// repeated is a flag that may be given several times.
type repeated []string

func (r *repeated) String() string { return fmt.Sprint(*r) }

func (r *repeated) Set(value string) error {
	*r = append(*r, value)
	return nil
}
