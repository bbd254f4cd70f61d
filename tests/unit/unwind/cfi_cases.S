# Functions whose call frame information is written by hand, one per rule that the builder must understand.
# Each has a global label cfi_case_NAME at the address that a test asks about; nothing here is ever run.
        .text
        .macro case name
        .globl cfi_case_\name
cfi_case_\name:
        nop
        .endm

        # rows of a plain function: entry, after a push, after the frame pointer is set up, at its end
        .type cfi_plain, @function
cfi_plain:
        .cfi_startproc
        case entry
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        case pushed
        mov %rsp, %rbp
        .cfi_def_cfa_register %rbp
        case frame
        .cfi_remember_state
        pop %rbp
        .cfi_def_cfa %rsp, 8
        .cfi_restore %rbp
        case popped
        ret
        .cfi_restore_state
        case restored
        ret
        .cfi_endproc

        # large offset, in each of the encodings of an advance
cfi_advances:
        .cfi_startproc
        case advance0
        .cfi_def_cfa_offset 1048576
        case advance1
        .skip 100, 0x90
        .cfi_def_cfa_offset 16
        case advance_loc1
        .skip 1000, 0x90
        .cfi_def_cfa_offset 24
        case advance_loc2
        .skip 70000, 0x90
        .cfi_def_cfa_offset 32
        case advance_loc4
        ret
        .cfi_endproc

        # *(rbp - 8), rbp saved at rbp + 0: a realigned frame
cfi_realigned:
        .cfi_startproc
        case before_realigned
        .cfi_escape 0x0f, 3, 0x76, 0x78, 0x06
        .cfi_escape 0x10, 6, 2, 0x76, 0
        case realigned
        ret
        .cfi_endproc

        # *(rsp + 16) + 8, as OpenSSL writes it
cfi_saved_rsp:
        .cfi_startproc
        .cfi_escape 0x0f, 5, 0x77, 16, 0x06, 0x23, 8
        case saved_rsp
        ret
        .cfi_endproc

        # rsp + 8 + ((rip & 15) >= 11) << 3
cfi_plt:
        .cfi_startproc
        .cfi_escape 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22
        case plt
        ret
        .cfi_endproc

        # something that nobody can follow: rsp + reg rax * 8
cfi_unsupported:
        .cfi_startproc
        .cfi_escape 0x0f, 7, 0x77, 8, 0x70, 0, 0x33, 0x24, 0x22
        case unsupported
        .cfi_def_cfa %rsp, 8
        case supported_again
        ret
        .cfi_endproc

        # outermost frame
cfi_outermost:
        .cfi_startproc
        .cfi_undefined %rip
        case outermost
        hlt
        .cfi_endproc

        # return address in a register
cfi_return_register:
        .cfi_startproc
        pop %rdi
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rdi
        case return_register
        jmp *%rdi
        .cfi_endproc

        # CFA from another register
cfi_other_register:
        .cfi_startproc
        .cfi_def_cfa %r10, 0
        case other_register
        ret
        .cfi_endproc

        # rbp not recoverable: kept in a register nobody follows
cfi_lost_rbp:
        .cfi_startproc
        .cfi_register %rbp, %r11
        case lost_rbp
        ret
        .cfi_endproc

        # a signal trampoline as libc has it: signal frame, CFA = *(rsp + 160)
        nop
cfi_trampoline:
        .cfi_startproc
        .cfi_signal_frame
        .cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 0x06
        .cfi_escape 0x10, 16, 3, 0x77, 0xa8, 1
        case trampoline
        mov $15, %eax
        syscall
        .cfi_endproc

        # 40 bytes of which nothing is known, then a trampoline of which nothing is said
        .globl cfi_case_gap
cfi_case_gap:
        .skip 40, 0x90
        .globl cfi_case_bare_trampoline
cfi_case_bare_trampoline:
        mov $15, %rax
        syscall
        .globl cfi_case_after_bare_trampoline
cfi_case_after_bare_trampoline:
        .skip 40, 0x90

        # padding of 8 bytes between two functions
cfi_before_padding:
        .cfi_startproc
        ret
        .cfi_endproc
        .globl cfi_case_padding
cfi_case_padding:
        .skip 8, 0xcc
cfi_after_padding:
        .cfi_startproc
        ret
        .cfi_endproc

        # entered by a return address that nobody pushed by calling: the byte before it is not of the function before
        nop
        .globl cfi_case_before_entered
cfi_case_before_entered:
        nop
        .globl cfi_case_entered
cfi_case_entered:
        .cfi_startproc
        .cfi_undefined %rip
        hlt
        .cfi_endproc

        .section .note.GNU-stack, "", @progbits
