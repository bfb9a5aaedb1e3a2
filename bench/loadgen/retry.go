package main

import (
	"bytes"
	"errors"
	"math/rand"
	"net"
	"strconv"
	"sync"
	"time"
)

// slowRead is how much of an answer is read at once.
const slowRead = 2 << 10

// insistence is how callers behave that do not take no for an answer.
type insistence struct {
	retries int     // how often a request is made again, at most
	wait    float64 // seconds before that, on average
	spoiled []byte  // an answer with these bytes in it is not a good one
}

// insisted is what came of a load whose callers try again. An attempt is given up after -deadline-seconds; a request is
// in time when one was answered well within them, counted from the instant at which the request was due.
type insisted struct {
	StartedAt     float64        `json:"started_at"` // seconds since 1970
	Slots         []slot         `json:"slots"`      // of -slot-seconds each, from the start on
	Attempts      int            `json:"attempts"`
	Failures      map[string]int `json:"failures"` // attempts by status, or "spoiled", "late", "connection", "malformed"
	OwnCPUSeconds float64        `json:"own_cpu_seconds"`
}

// insist offers requests when they are due. Each waits in a routine of its own, so that none holds up another.
func insist(options options, rate, seconds float64, seed int64) (*insisted, error) {
	schedule := newSchedule(seed, rate, seconds, options.count)
	l := &insistent{options: options, report: insisted{Failures: map[string]int{}}}
	l.report.Slots = newSlots(schedule, options.slotSeconds)
	before := cpuSeconds()
	l.start = time.Now()
	l.report.StartedAt = float64(l.start.UnixNano()) / 1e9
	var callers sync.WaitGroup
	for number, due := range schedule {
		time.Sleep(time.Duration(due) - time.Since(l.start))
		callers.Add(1)
		go func(due int64, number int) {
			defer callers.Done()
			l.ask(time.Duration(due), number, rand.New(rand.NewSource(seed+int64(number))))
		}(due, number)
	}
	callers.Wait()
	for _, idle := range l.idle {
		idle.Close()
	}
	l.report.OwnCPUSeconds = cpuSeconds() - before
	return &l.report, nil
}

// insistent is such a load on its way.
type insistent struct {
	options options
	start   time.Time
	lock    sync.Mutex
	idle    []net.Conn
	report  insisted
}

// ask makes a request until it is answered well, or has been made often enough.
func (l *insistent) ask(due time.Duration, number int, chance *rand.Rand) {
	how := l.options.insistence
	request := l.options.requests[number%len(l.options.requests)]
	for attempt := 0; ; attempt++ {
		failure := l.attempt(request)
		took := time.Since(l.start) - due
		l.lock.Lock()
		l.report.Attempts++
		if failure != "" {
			l.report.Failures[failure]++
		} else if took <= toDuration(l.options.deadline) {
			countInDeadline(l.report.Slots, int64(due), l.options.slotSeconds)
		}
		l.lock.Unlock()
		if failure == "" || attempt == how.retries {
			return
		}
		time.Sleep(toDuration(how.wait * 2 * chance.Float64()))
	}
}

// attempt makes a request once, and names what kept it from being answered well. Whoever gives up hangs up.
func (l *insistent) attempt(request []byte) (failure string) {
	connection, err := l.connect()
	if err != nil {
		return cause(err)
	}
	connection.SetDeadline(time.Now().Add(toDuration(l.options.deadline)))
	answer, body, err := exchange(connection, request)
	if err != nil {
		connection.Close()
		return cause(err)
	}
	if answer.closing {
		connection.Close()
	} else {
		l.lock.Lock()
		l.idle = append(l.idle, connection)
		l.lock.Unlock()
	}
	switch spoiled := l.options.insistence.spoiled; {
	case !answer.isGood():
		return answer.kind()
	case len(spoiled) > 0 && bytes.Contains(body, spoiled):
		return "spoiled"
	}
	return ""
}

func cause(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "late"
	case errors.Is(err, errMalformed):
		return "malformed"
	}
	return "connection"
}

func (l *insistent) connect() (net.Conn, error) {
	l.lock.Lock()
	if last := len(l.idle) - 1; last >= 0 {
		connection := l.idle[last]
		l.idle = l.idle[:last]
		l.lock.Unlock()
		return connection, nil
	}
	l.lock.Unlock()
	to := l.options.target
	address := net.JoinHostPort(net.IP(to.address[:]).String(), strconv.Itoa(to.port))
	return net.DialTimeout("tcp4", address, toDuration(l.options.deadline))
}

// exchange sends a request and returns its answer with all its bytes, head and chunk sizes included.
func exchange(connection net.Conn, request []byte) (answer response, all []byte, err error) {
	if _, err = connection.Write(request); err != nil {
		return answer, nil, err
	}
	buffer := make([]byte, slowRead)
	for {
		count, err := connection.Read(buffer)
		if err != nil {
			return answer, nil, err
		}
		all = append(all, buffer[:count]...)
		if done, err := answer.feed(buffer[:count]); done || err != nil {
			return answer, all, err
		}
	}
}

func toDuration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
