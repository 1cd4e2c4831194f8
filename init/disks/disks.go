// Package disks names the disks that a host gives to a guest. init finds them by these serial numbers, and whoever starts a guest
// writes them: a serial number only says which bytes to look at, and what they are worth is decided elsewhere.
package disks

// The serial numbers. A boot disk holds the root volume in a partition, and stands in Root's place. A guest of several models has an engine and a
// model disk for each, whose serial numbers are engines.Nth of Engine and Model.
const (
	Root    = "chrysalis-root"
	Config  = "chrysalis-config"
	Journal = "chrysalis-journal"
	Engine  = "chrysalis-engine"
	Model   = "chrysalis-model"
	Boot    = "chrysalis-disk"
)
