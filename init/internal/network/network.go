// Package network gives the guest its one address. What the host answers can cut the guest off; it decides nothing
// else: no resolver, no host name, no route but the default is taken from it.
package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"chrysalis/measure/config"
)

// dhcpAttempt bounds one exchange; the server of a virtual machine answers in milliseconds.
const dhcpAttempt = 3 * time.Second

// Up brings up the loopback interface and the one other interface, with the address that the host document names.
func Up(ctx context.Context, host config.HostNetwork) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("bringing up lo: %v", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("bringing up lo: %v", err)
	}
	link, err := onlyEthernet(ctx)
	if err != nil {
		return err
	}
	name := link.Attrs().Name
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up %s: %v", name, err)
	}
	address, gateway := host.Address, host.Gateway
	if host.Mode == config.ModeDHCP4 {
		if address, gateway, err = lease(ctx, name); err != nil {
			return fmt.Errorf("asking for an address on %s: %v", name, err)
		}
	}
	ip := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("setting address %s on %s: %v", address, name, err)
	}
	if gateway.IsValid() {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("setting route by %s on %s: %v", gateway, name, err)
		}
	}
	return nil
}

// onlyEthernet waits for the machine's one network interface.
func onlyEthernet(ctx context.Context) (netlink.Link, error) {
	for {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, fmt.Errorf("listing interfaces: %v", err)
		}
		var found []netlink.Link
		for _, l := range links {
			if l.Attrs().EncapType == "ether" && l.Attrs().RawFlags&unix.IFF_LOOPBACK == 0 {
				found = append(found, l)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return nil, fmt.Errorf("found %d network interfaces, want 1", len(found))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a network interface: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func lease(ctx context.Context, name string) (address netip.Prefix, gateway netip.Addr, err error) {
	client, err := nclient4.New(name, nclient4.WithTimeout(dhcpAttempt), nclient4.WithRetry(3))
	if err != nil {
		return address, gateway, err
	}
	defer client.Close()
	l, err := client.Request(ctx)
	if err != nil {
		return address, gateway, err
	}
	ip, ok := netip.AddrFromSlice(l.ACK.YourIPAddr.To4())
	bits, size := l.ACK.SubnetMask().Size()
	if !ok || size != 32 || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
		return address, gateway, fmt.Errorf("offered address %s with mask %s is unusable", l.ACK.YourIPAddr, l.ACK.SubnetMask())
	}
	address = netip.PrefixFrom(ip, bits)
	if routers := l.ACK.Router(); len(routers) > 0 {
		if gw, ok := netip.AddrFromSlice(routers[0].To4()); ok && address.Contains(gw) {
			gateway = gw
		}
	}
	return address, gateway, nil
}
