package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// network writes the operating system's network configuration in the style that the image understands, and puts aside what the image
// brought along: two configurations of one interface would both be right.
func (in *installer) network() error {
	p, bare, err := readNetPlan(in.plan.Network)
	if err != nil {
		return err
	}
	style := in.plan.NetworkStyle
	if bare == nil {
		style = styleNone
	}
	if style == "" {
		if style, err = networkStyle(in.has, p); err != nil {
			return err
		}
	}
	files, err := renderNetwork(style, bare)
	if err != nil {
		return err
	}
	in.rep.Logf("network style: %s, %d files", style, len(files))
	if len(files) == 0 {
		return nil
	}
	if err := in.putAside(style); err != nil {
		return err
	}
	for _, f := range files {
		if err := in.write(f); err != nil {
			return err
		}
	}
	if style == styleNetworkd {
		if err := in.enable("multi-user.target", "systemd-networkd.service"); err != nil {
			return err
		}
	}
	return in.resolver(style, p)
}

// foreignConfig are the places, as directory and pattern, where an image's own network configuration would be read beside ours.
var foreignConfig = map[string][][2]string{
	styleNetplan:   {{"etc/netplan", "*.yaml"}},
	styleNetworkd:  {{"etc/systemd/network", "*.network"}, {"etc/systemd/network", "*.netdev"}, {"etc/systemd/network", "*.link"}},
	styleNM:        {{"etc/NetworkManager/system-connections", "*"}, {"etc/sysconfig/network-scripts", "ifcfg-*"}, {"etc/systemd/network", "*.link"}},
	styleIfcfg:     {{"etc/sysconfig/network-scripts", "ifcfg-*"}, {"etc/sysconfig/network-scripts", "route*-*"}, {"etc/sysconfig/network-scripts", "rule*-*"}},
	styleENI:       {{"etc/network/interfaces.d", "*"}},
	styleCloudInit: {{"etc/cloud/cloud.cfg.d", "*disable-network-config.cfg"}, {"etc/cloud/cloud.cfg.d", "*disable-cloudinit-networking.cfg"}},
}

// putAside renames such files to hidden names that nobody reads: nothing of the image is lost.
func (in *installer) putAside(style string) error {
	places := append(slices.Clone(foreignConfig[style]), [2]string{"etc/udev/rules.d", "*persistent-net*.rules"})
	for _, place := range places {
		ents, err := fs.ReadDir(in.root.FS(), place[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range ents {
			n := e.Name()
			if ok, _ := path.Match(place[1], n); !ok || n[0] == '.' || strings.Contains(n, "-ingot-") || n == "ifcfg-lo" || strings.HasPrefix(n, "ifup") || strings.HasPrefix(n, "ifdown") || e.IsDir() {
				continue
			}
			in.rep.Logf("put aside: /%s/%s", place[0], n)
			if err := in.root.Rename(path.Join(place[0], n), path.Join(place[0], "."+n+".put-aside")); err != nil {
				return err
			}
		}
	}
	return nil
}

// enable makes a target of systemd want a unit that the system has.
func (in *installer) enable(target, unit string) error {
	dir := path.Join("etc/systemd/system", target+".wants")
	from := ""
	for _, p := range []string{"usr/lib/systemd/system/", "lib/systemd/system/"} {
		if in.has(p + unit) {
			from = "/" + p + unit
			break
		}
	}
	if from == "" {
		return nil
	}
	if _, err := in.root.Lstat(path.Join(dir, unit)); err == nil {
		return nil
	}
	if err := in.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return in.root.Symlink(from, path.Join(dir, unit))
}

// resolver writes name servers where no daemon would: systemd-networkd only passes them on to systemd-resolved, and ifupdown to
// resolvconf. A link is somebody's decision and stays.
func (in *installer) resolver(style string, p netPlan) error {
	switch style {
	case styleNetworkd, styleNetplan:
		if in.has("lib/systemd/systemd-resolved") || in.has("usr/lib/systemd/systemd-resolved") || style == styleNetplan && in.has("usr/sbin/NetworkManager") {
			return nil
		}
	case styleENI:
		if in.has("sbin/resolvconf") || in.has("usr/sbin/resolvconf") {
			return nil
		}
	default:
		return nil
	}
	if fi, err := in.root.Lstat("etc/resolv.conf"); err == nil && fi.Mode()&os.ModeSymlink != 0 && in.has("etc/resolv.conf") {
		return nil
	}
	text := p.resolvConf()
	if text == "" {
		return nil
	}
	return in.write(outFile{"/etc/resolv.conf", text, 0o644})
}

// resolvConf is the name servers and search domains of all interfaces, in the order of the interfaces; a resolver reads three.
func (p netPlan) resolvConf() string {
	var servers, search []string
	for _, kind := range p.kinds() {
		for _, k := range keys(kind.group) {
			ns := kind.group[k].Nameservers
			servers, search = append(servers, ns.Addresses...), append(search, ns.Search...)
		}
	}
	var b strings.Builder
	for i, s := range uniq(servers) {
		if i < 3 {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
	}
	if s := uniq(search); len(s) > 0 && b.Len() > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s, " "))
	}
	return b.String()
}

func uniq(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
