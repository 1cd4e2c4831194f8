// Package gpu says which GPUs the guest sees.
package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// nvidiaVendor and the display class are PCI numbers as sysfs prints them.
const (
	nvidiaVendor = "0x10de"
	displayClass = "0x03"
)

// driverName is what the kernel calls the GPUs' driver.
const driverName = "nvidia"

// Find returns the PCI addresses of the NVIDIA GPUs below sys, the sysfs mount.
func Find(sys string) ([]string, error) {
	devices, err := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, dir := range devices {
		vendor, err := os.ReadFile(filepath.Join(dir, "vendor"))
		if err != nil {
			return nil, fmt.Errorf("looking for GPUs: %v", err)
		}
		class, err := os.ReadFile(filepath.Join(dir, "class"))
		if err != nil {
			return nil, fmt.Errorf("looking for GPUs: %v", err)
		}
		if strings.TrimSpace(string(vendor)) == nvidiaVendor && strings.HasPrefix(string(class), displayClass) {
			found = append(found, filepath.Base(dir))
		}
	}
	return found, nil
}
