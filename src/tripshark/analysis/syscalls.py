"""Which system calls a dissector never needs, and their numbers on the machines we know.

Numbers come from the kernel's `unistd_64.h` (x86_64) and `asm-generic/unistd.h` (aarch64). A name that an
architecture lacks is simply not listed there.
"""

from __future__ import annotations

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Talk to anybody; make or signal processes; look into them; change mounts, clocks or the kernel; change the
# permissions or times of the one file that is open; share memory outside the limits of RLIMIT_AS.
DENIED: dict[str, tuple[int, ...]] = {
    "x86_64": (
        *(41, 53, 42, 49, 50, 43, 288, 44, 46, 307),  # socket … sendmmsg
        *(57, 58, 322),  # fork, vfork, execveat
        *(62, 200, 129, 297, 434, 424, 438),  # kill, tkill, rt_(tg)sigqueueinfo, pidfd_*
        *(101, 310, 311, 312, 440, 448),  # ptrace, process_vm_*, kcmp, process_madvise, _mrelease
        *(165, 166, 155, 161, 272, 308),  # mount, umount2, pivot_root, chroot, unshare, setns
        *(428, 429, 430, 431, 432, 433, 442),  # open_tree … fspick, mount_setattr
        *(321, 298, 323, 425, 426, 427),  # bpf, perf_event_open, userfaultfd, io_uring_*
        *(248, 249, 250),  # add_key, request_key, keyctl
        *(175, 313, 176, 246, 320, 169),  # modules, kexec, reboot
        *(167, 168, 163, 179, 443, 103),  # swap, acct, quotactl, syslog
        *(170, 171, 164, 227, 305, 159, 172, 173, 135),  # names, clocks, iopl, ioperm, personality
        *(303, 304, 300, 212),  # file handles, fanotify_init, lookup_dcookie
        *(90, 91, 268, 452, 92, 93, 94, 260),  # chmod and chown families
        *(188, 189, 190, 197, 198, 199, 463, 466),  # extended attributes
        *(132, 235, 261, 280),  # utime family
        *(29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241),  # System V and POSIX IPC
        *(319, 447),  # memfd_create, memfd_secret
    ),
    "aarch64": (
        *(198, 199, 203, 200, 201, 202, 242, 206, 211, 269),
        281,
        *(129, 130, 138, 240, 434, 424, 438),
        *(117, 270, 271, 272, 440, 448),
        *(40, 39, 41, 51, 97, 268),
        *(428, 429, 430, 431, 432, 433, 442),
        *(280, 241, 282, 425, 426, 427),
        *(217, 218, 219),
        *(105, 273, 106, 104, 294, 142),
        *(224, 225, 89, 60, 443, 116),
        *(161, 162, 170, 112, 266, 171, 92),
        *(264, 265, 262, 18),
        *(52, 53, 452, 54, 55),
        *(5, 6, 7, 14, 15, 16, 463, 466),
        88,
        *(194, 196, 195, 190, 193, 191, 192, 186, 189, 188, 187, 180, 181),
        *(279, 447),
    ),
}

# Allowed in one form only: threads but no processes, signals and limits for itself alone.
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
TGKILL = {"x86_64": 234, "aarch64": 131}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
