package services

import (
	"errors"
	"net"
	"os"
	"time"

	"chrysalis/init/internal/supervise"
	"chrysalis/init/status"
)

// gpuHelper speaks to the driver of GPUs, in an image that has one.
const gpuHelper = "/usr/bin/gpu-helper"

// GPUHelper starts the helper, and returns the guest's ends of its two sockets (init/gpuhelper). Whoever watches its beats knows first
// that it is gone, and ends the guest for it; its end is the guest's all the same.
func (s *Services) GPUHelper() (requests, beats net.Conn, err error) {
	var theirs []*os.File
	var ours [2]net.Conn
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		for _, conn := range ours {
			if err != nil && conn != nil {
				conn.Close()
			}
		}
	}()
	for i, name := range []string{"gpu requests", "gpu beats"} {
		a, b, err := socketPair(name)
		if err != nil {
			return nil, nil, err
		}
		theirs = append(theirs, b)
		var wrong error
		ours[i], wrong = net.FileConn(a)
		if err := errors.Join(wrong, a.Close()); err != nil {
			return nil, nil, err
		}
	}
	err = s.start(supervise.Process{Name: "gpu-helper", Argv: []string{gpuHelper}, NoNetwork: true, Files: theirs}, status.GPULost,
		func() { time.Sleep(lastWords) })
	return ours[0], ours[1], err
}
