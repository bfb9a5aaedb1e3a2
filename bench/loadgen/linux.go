package main

import (
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// pin keeps every thread of this process on one CPU; threads that start later inherit it.
func pin(cpu int) error {
	var mask [16]uint64
	mask[cpu/64] |= 1 << (cpu % 64)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		thread, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		size, address := unsafe.Sizeof(mask), unsafe.Pointer(&mask)
		_, _, code := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), size, uintptr(address))
		if code != 0 {
			return code
		}
	}
	return nil
}

// cpuSeconds is what this process has used so far, in user and kernel.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// alarm wakes the loop at an instant; epoll's own timeout counts whole milliseconds, which is too coarse.
type alarm struct{ fd int }

func newAlarm() (alarm, error) {
	const monotonic, nonBlocking = 1, 0x800
	fd, _, code := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, monotonic, nonBlocking, 0)
	if code != 0 {
		return alarm{}, code
	}
	return alarm{fd: int(fd)}, nil
}

// set (again) rings once after `wait`; that also forgets an earlier ring which nobody read.
func (a alarm) set(wait time.Duration) error {
	wait = max(wait, 1)
	setting := [2]syscall.Timespec{{}, syscall.NsecToTimespec(int64(wait))}
	address := uintptr(unsafe.Pointer(&setting))
	_, _, code := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(a.fd), 0, address, 0, 0, 0)
	if code != 0 {
		return code
	}
	return nil
}

// wait blocks until a descriptor has something to say, or the alarm rings. It is a raw call: around a blocking one
// the runtime hands its processor to another thread and back, which costs more than all else that we do for a request.
func wait(epoll int, events []syscall.EpollEvent) (int, error) {
	const forever = ^uintptr(0)
	address := uintptr(unsafe.Pointer(&events[0]))
	count, _, code := syscall.RawSyscall6(
		syscall.SYS_EPOLL_PWAIT, uintptr(epoll), address, uintptr(len(events)), forever, 0, 0)
	if code == syscall.EINTR {
		return 0, nil
	}
	if code != 0 {
		return 0, code
	}
	return int(count), nil
}
