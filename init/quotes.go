package main

import "os"

func (g *guest) serveQuotes(conn *os.File) {}
