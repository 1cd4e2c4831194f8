package tdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/platform/tsm"
)

// The host's quoting service, asked straight over vsock: the kernel asks once a second whether a quote has come, and the service
// answers in milliseconds. Messages are those of Intel's quote generation service, qgs_msg_lib.h of DCAP 1.23: a length (u32,
// big-endian), then a header of major version, minor version (u16), type, size of the message with its header, error (u32), all
// little-endian, then the sizes of the two parts that follow it.
const (
	lengthBytes  = 4
	qgsHeader    = 16
	qgsHead      = qgsHeader + 8
	qgsMajor     = 1
	qgsMinor     = 1
	typeRequest  = 0 // report_size, id_list_size, report, ids
	typeResponse = 1 // selected_id_size, quote_size, id, quote

	// serviceLimit bounds an exchange with the service, as the kernel bounds its own.
	serviceLimit = 30 * time.Second
)

// dialer connects to the host's service on a port; a connection takes the deadline that it is given.
type dialer func(port uint32, deadline time.Time) (io.ReadWriteCloser, error)

// describer has the TDX module make a TD report, by way of the kernel's device.
type describer func(device string, reportData [64]byte) ([reportBytes]byte, error)

// askService has the service make a quote of the report. What comes back is untrusted.
func askService(dial dialer, port uint32, report [reportBytes]byte) ([]byte, error) {
	conn, err := dial(port, time.Now().Add(serviceLimit))
	if err != nil {
		return nil, fmt.Errorf("asking quoting service: %w", late(err))
	}
	defer conn.Close()
	quote, err := exchange(conn, report)
	if err != nil {
		return nil, fmt.Errorf("asking quoting service: %w", late(err))
	}
	return quote, nil
}

// late gives a connection that ran out of time the platform's own word for that.
func late(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("%w: %w", tsm.ErrTimeout, err)
	}
	return err
}

func exchange(conn io.ReadWriter, report [reportBytes]byte) ([]byte, error) {
	le := binary.LittleEndian
	message := binary.BigEndian.AppendUint32(nil, qgsHead+reportBytes)
	message = le.AppendUint16(le.AppendUint16(message, qgsMajor), qgsMinor)
	for _, word := range []uint32{typeRequest, qgsHead + reportBytes, 0, reportBytes, 0} {
		message = le.AppendUint32(message, word)
	}
	if _, err := conn.Write(append(message, report[:]...)); err != nil {
		return nil, err
	}
	var head [lengthBytes + qgsHeader]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, fmt.Errorf("reading answer: %w", err)
	}
	length, header := binary.BigEndian.Uint32(head[:]), head[lengthBytes:]
	major, kind, size, code := le.Uint16(header), le.Uint32(header[4:]), le.Uint32(header[8:]), le.Uint32(header[12:])
	switch {
	case major != qgsMajor || kind != typeResponse:
		return nil, fmt.Errorf("%w: answer has version %d and type %d, want %d and %d", tsm.ErrForeign, major, kind, qgsMajor, typeResponse)
	case code != 0:
		return nil, fmt.Errorf("%w: error %#x", tsm.ErrRefused, code)
	case size != length || size < qgsHead || size > qgsHead+maxQuoteBytes:
		return nil, fmt.Errorf("%w: answer has %d bytes in a frame of %d, want the same, %d to %d", tsm.ErrForeign, size, length, qgsHead, qgsHead+maxQuoteBytes)
	}
	body := make([]byte, size-qgsHeader)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, fmt.Errorf("reading answer of %d bytes: %w", size, err)
	}
	if id, n := le.Uint32(body), le.Uint32(body[4:]); id != 0 || int64(n) != int64(len(body)-8) {
		return nil, fmt.Errorf("%w: a quote of %d bytes after an id of %d, want %d after none", tsm.ErrForeign, n, id, len(body)-8)
	}
	return body[8:], nil
}

// report0 has the TDX module make a report: TDX_CMD_GET_REPORT0, _IOWR('T', 1, struct tdx_report_req) of linux/tdx-guest.h.
func report0(device string, reportData [64]byte) (report [reportBytes]byte, err error) {
	const getReport0 = 0xc4405401
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return report, fmt.Errorf("making TD report: %v", err)
	}
	defer f.Close()
	var request [64 + reportBytes]byte
	copy(request[:], reportData[:])
	if err := uninterrupted(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getReport0, uintptr(unsafe.Pointer(&request[0]))); errno != 0 {
			return errno
		}
		return nil
	}); err != nil {
		return report, fmt.Errorf("making TD report: %w", err)
	}
	copy(report[:], request[64:])
	return report, nil
}

// uninterrupted calls again what a signal interrupts. Go's runtime sends some to its threads, and the kernel does not itself go on with a call
// that has a limit of time (signal(7)).
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// dialVsock connects to the host's service. Gateway, keeper and engine can't open this family of sockets; root beside init could.
func dialVsock(port uint32, deadline time.Time) (conn io.ReadWriteCloser, err error) {
	err = uninterrupted(func() error { // with a socket of its own each time: an interrupted connect is over
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
		conn, err = connectVsock(port, deadline)
		return err
	})
	return conn, err
}

func connectVsock(port uint32, deadline time.Time) (io.ReadWriteCloser, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// The kernel bounds each call; a service that drips bytes is bounded by the number of calls that an answer takes.
	limit := unix.NsecToTimeval(time.Until(deadline).Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, &limit))
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &timed{os.NewFile(uintptr(fd), "vsock"), deadline}, nil
}

// timed is a blocking connection on which nothing begins after the deadline.
type timed struct {
	*os.File
	deadline time.Time
}

func (c *timed) Read(b []byte) (int, error) {
	if time.Now().After(c.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return c.File.Read(b)
}
