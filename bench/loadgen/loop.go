package main

import (
	"fmt"
	"syscall"
	"time"
)

// connection carries one request at a time; `due` is when the request was to be sent, in nanoseconds from the start.
type connection struct {
	fd      int
	busy    bool
	due     int64
	unsent  []byte
	answer  response
	writing bool // epoll also tells when the socket takes more
}

// load is one offered load on its way: one thread, one epoll, ready bytes out and counted bytes in.
type load struct {
	options     options
	schedule    []int64
	next        int // the first arrival that was not sent yet
	start       time.Time
	end         int64
	epoll       int
	alarm       alarm
	connections map[int]*connection
	idle        []*connection
	inFlight    int
	inTime      int
	buffer      []byte
	latencies   []int64
	report      report
}

// offer sends requests when they are due, for `seconds`, and waits for the last answers.
func offer(options options, rate, seconds float64, seed int64) (*report, error) {
	l := &load{
		options:     options,
		schedule:    newSchedule(seed, rate, seconds, options.count),
		end:         int64(seconds * 1e9),
		connections: map[int]*connection{},
		buffer:      make([]byte, 256<<10),
		report:      report{Errors: map[string]int{}, Seconds: seconds, Seed: seed, Connections: options.connections},
	}
	if count := len(l.schedule); count == options.count {
		l.report.Seconds = float64(l.schedule[count-1]) / 1e9
	}
	l.latencies = make([]int64, 0, len(l.schedule))
	l.report.Slots = newSlots(l.schedule, options.slotSeconds)
	if err := l.open(); err != nil {
		return nil, err
	}
	defer l.close()
	before := cpuSeconds()
	l.start = time.Now()
	l.report.StartedAt = float64(l.start.UnixNano()) / 1e9
	if err := l.run(); err != nil {
		return nil, err
	}
	l.conclude(cpuSeconds() - before)
	return &l.report, nil
}

func (l *load) open() (err error) {
	if l.epoll, err = syscall.EpollCreate1(0); err != nil {
		return err
	}
	if l.alarm, err = newAlarm(); err != nil {
		return err
	}
	if err = l.watch(l.alarm.fd, syscall.EPOLLIN, syscall.EPOLL_CTL_ADD); err != nil {
		return err
	}
	for !l.options.fresh && len(l.connections) < l.options.connections {
		c, err := l.connect(0)
		if err != nil {
			return err
		}
		l.idle = append(l.idle, c)
	}
	return nil
}

func (l *load) close() {
	for fd := range l.connections {
		syscall.Close(fd)
	}
	syscall.Close(l.alarm.fd)
	syscall.Close(l.epoll)
}

func (l *load) watch(fd int, events uint32, operation int) error {
	return syscall.EpollCtl(l.epoll, operation, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// connect opens a connection. With SOCK_NONBLOCK it is not waited for: that it came to nothing is found by writing to it.
func (l *load) connect(flags int) (*connection, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	to := l.options.target
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: to.port, Addr: to.address})
	if err != nil && flags&syscall.SOCK_NONBLOCK == 0 {
		syscall.Close(fd)
		return nil, fmt.Errorf("connecting to %s: %w", to.host, err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return nil, err
	}
	c := &connection{fd: fd}
	l.connections[fd] = c
	return c, l.watch(fd, syscall.EPOLLIN, syscall.EPOLL_CTL_ADD)
}

// isFree says whether a request can be sent now: on an idle connection, or on one more.
func (l *load) isFree() bool { return len(l.idle) > 0 || len(l.connections) < l.options.connections }

// take gives a connection for a request when isFree does.
func (l *load) take() (*connection, error) {
	if len(l.idle) == 0 {
		return l.connect(syscall.SOCK_NONBLOCK)
	}
	c := l.idle[len(l.idle)-1]
	l.idle = l.idle[:len(l.idle)-1]
	return c, nil
}

func (l *load) now() int64 { return int64(time.Since(l.start)) }

// run ends when every request that could be sent in time is answered, or the drain is over.
func (l *load) run() error {
	events := make([]syscall.EpollEvent, 256)
	drained := l.end + int64(l.options.drainSeconds*1e9)
	for ended := false; ; {
		now := l.now()
		// Once more at the end: what was due just before must not be lost because this process was woken late.
		if !ended {
			ended = now >= l.end
			if err := l.sendDue(now); err != nil {
				return err
			}
		}
		nothingToSend := ended || l.next == len(l.schedule)
		if nothingToSend && l.inFlight == 0 || now >= drained {
			return nil
		}
		wake := drained
		if !nothingToSend {
			wake = l.end
			if l.isFree() {
				wake = min(wake, l.schedule[l.next])
			}
		}
		if err := l.alarm.set(time.Duration(wake - now)); err != nil {
			return err
		}
		count, err := wait(l.epoll, events)
		if err != nil {
			return err
		}
		for _, event := range events[:count] {
			if err := l.handle(event); err != nil {
				return err
			}
		}
	}
}

func (l *load) sendDue(now int64) error {
	for l.next < len(l.schedule) && l.schedule[l.next] <= now && l.isFree() {
		c, err := l.take()
		if err != nil {
			return err
		}
		c.busy, c.due = true, l.schedule[l.next]
		c.unsent = l.options.requests[l.next%len(l.options.requests)]
		c.answer.reset()
		l.next++
		l.inFlight++
		l.report.Sent++
		if err := l.write(c); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) write(c *connection) error {
	for len(c.unsent) > 0 {
		written, err := syscall.Write(c.fd, c.unsent)
		if err == syscall.EAGAIN {
			break
		}
		if err != nil {
			return l.fail(c, "connection")
		}
		c.unsent = c.unsent[written:]
	}
	if wanted := len(c.unsent) > 0; wanted != c.writing {
		c.writing = wanted
		events := uint32(syscall.EPOLLIN)
		if wanted {
			events |= syscall.EPOLLOUT
		}
		return l.watch(c.fd, events, syscall.EPOLL_CTL_MOD)
	}
	return nil
}

func (l *load) handle(event syscall.EpollEvent) error {
	c := l.connections[int(event.Fd)]
	if c == nil {
		return nil // the alarm, or a connection that was dropped by an event before this one
	}
	if event.Events&syscall.EPOLLOUT != 0 && len(c.unsent) > 0 {
		if err := l.write(c); err != nil {
			return err
		}
	}
	if event.Events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 || l.connections[c.fd] != c {
		return nil
	}
	return l.read(c)
}

func (l *load) read(c *connection) error {
	count, err := syscall.Read(c.fd, l.buffer)
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return nil
	}
	if err != nil || count == 0 {
		return l.fail(c, "connection")
	}
	if !c.busy {
		return l.fail(c, "malformed")
	}
	done, err := c.answer.feed(l.buffer[:count])
	if err != nil {
		return l.fail(c, "malformed")
	}
	if !done {
		return nil
	}
	return l.finish(c)
}

func (l *load) finish(c *connection) error {
	now := l.now()
	l.latencies = append(l.latencies, now-c.due)
	l.inFlight--
	c.busy = false
	if c.answer.isGood() {
		l.report.OK++
		if now <= int64(l.report.Seconds*1e9) {
			l.inTime++
		}
		if now-c.due <= int64(l.options.deadline*1e9) {
			l.report.InDeadline++
			countInDeadline(l.report.Slots, c.due, l.options.slotSeconds)
		}
	} else {
		l.report.Errors[c.answer.kind()]++
	}
	if c.answer.closing || len(c.unsent) > 0 || l.options.fresh {
		l.drop(c)
	} else {
		l.idle = append(l.idle, c)
	}
	return nil
}

// fail counts a request that got no proper answer. An idle connection that its server closed cost nobody anything.
func (l *load) fail(c *connection, cause string) error {
	if c.busy {
		l.report.Errors[cause]++
		l.latencies = append(l.latencies, l.now()-c.due)
		l.inFlight--
	}
	l.drop(c)
	return nil
}

// drop closes a connection; take opens another one when a request is due.
func (l *load) drop(c *connection) {
	for place, other := range l.idle {
		if other == c {
			l.idle = append(l.idle[:place], l.idle[place+1:]...)
			break
		}
	}
	delete(l.connections, c.fd)
	syscall.Close(c.fd)
	l.report.Reconnects++
}

// conclude accounts for what has no answer: how old it is by now is the least that its latency would have been.
func (l *load) conclude(cpu float64) {
	now := l.now()
	for _, c := range l.connections {
		if c.busy {
			l.report.Unfinished++
			l.latencies = append(l.latencies, now-c.due)
		}
	}
	for _, due := range l.schedule[l.next:] {
		l.report.Unsent++
		l.latencies = append(l.latencies, now-due)
	}
	l.report.Due = len(l.schedule)
	l.report.OfferedPerSecond = float64(len(l.schedule)) / l.report.Seconds
	l.report.AchievedPerSecond = float64(l.inTime) / l.report.Seconds
	l.report.OwnCPUSeconds = cpu
	l.report.describe(l.latencies)
}
