#!/bin/busybox sh
# The guest's first process. Finds in /parameters what the host has decided: VFIO_MODULES and VIRTIO_MODULES in
# the order of loading, NICS, and STDIN: whether the command gets any.
# ttyS0 is the kernel's console, ttyS1 and ttyS2 the command's standard output and error, ttyS3 tells the host how far things are.
b=/bin/busybox

fail() {
    echo "failed $*" >/dev/ttyS3
    $b poweroff -f
}

# insmod LIST: what is built into this kernel is not in the list.
load() {
    for module in $1; do
        $b insmod "/modules/$module.ko" || fail "the module $module cannot be loaded; the kernel's console says why"
    done
}

# An empty tmpfs over a directory of the disk; what the host has put on the disk there stays visible.
cover() {
    $b mkdir -p "/root$1"
    $b mount -t tmpfs -o mode=1777 tmpfs "/root$1"
    for entry in "/disk$1"/* "/disk$1"/.[!.]*; do
        target="/root${entry#/disk}"
        if [ -L "$entry" ]; then
            $b cp -P "$entry" "$target"
        elif [ -d "$entry" ]; then
            $b mkdir "$target" && $b mount --bind "$entry" "$target"
        elif [ -e "$entry" ]; then
            : >"$target" && $b mount --bind "$entry" "$target"
        fi
    done
}

. /parameters
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev

# Raw: bytes go through unchanged, and nothing that the host sends is echoed.
for port in 1 2 3; do
    $b stty -F /dev/ttyS$port raw -echo || fail "the serial port ttyS$port does not work"
done

load "$VFIO_MODULES"
for nic in $NICS; do
    device=/sys/bus/pci/devices/$nic
    [ -e "$device" ] || fail "there is no NIC at $nic"
    echo vfio-pci >"$device/driver_override"
    # A kernel with virtio_pci built in (Debian's cloud kernel 6.12) has given a virtio card to it already.
    [ ! -e "$device/driver/unbind" ] || echo "$nic" >"$device/driver/unbind"
    echo "$nic" >/sys/bus/pci/drivers_probe
    [ -e "/sys/bus/pci/drivers/vfio-pci/$nic" ] || fail "vfio-pci does not take the NIC at $nic; the kernel's console may say why"
done
# After the NICs are bound: this driver would take a virtio-net.
load "$VIRTIO_MODULES"

[ -b /dev/vda ] || fail "the disk is missing: this kernel needs the module virtio_blk"
# Without lazy initialisation, which would write in the background and be counted.
$b mount -t ext4 -o noatime,noinit_itable /dev/vda /disk || fail "the disk cannot be mounted: this kernel needs ext4"
$b mount --bind /disk /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sysfs /root/sys
$b mount -t devtmpfs devtmpfs /root/dev
cover /dev/shm
cover /tmp
cover /run
$b ip link set lo up

input=/dev/null
if [ "$STDIN" = yes ]; then
    # The driver makes the port's file when QEMU has told it of the port.
    for wait in $($b seq 100); do
        set -- /dev/vport*p1
        [ -c "$1" ] && break
        $b usleep 50000
    done
    [ -c "$1" ] || fail "the port for standard input is missing: this kernel needs the module virtio_console"
    input=$1
fi

# Held open, so that the end of the command is not the last close: that would discard what the host has not taken after 30 s.
exec 7>/dev/ttyS1 8>/dev/ttyS2
echo ready >/dev/ttyS3
$b chroot /root /bin/busybox sh /command <"$input" >&7 2>&8 7>&- 8>&-
code=$?
# stty waits until the host has taken everything.
$b stty raw -echo <&7
$b stty raw -echo <&8
echo "exit $code" >/dev/ttyS3
$b poweroff -f
