//go:build !linux

package main

import "errors"

func freeHere() (uint64, error) { return 0, errors.ErrUnsupported }

func clockIsKept() (bool, error) { return false, errors.ErrUnsupported }
