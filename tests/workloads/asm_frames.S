// Hand-written functions without unwind information, with a frame pointer: through_asm(f, x) calls f(x) and adds 1;
// asm_leaf(x, rounds) burns in a frame of its own.
  .text
  .globl through_asm
  .type through_asm, @function
through_asm:
  push %rbp
  mov %rsp, %rbp
  sub $48, %rsp
  mov %rdi, %rax
  mov %rsi, %rdi
  call *%rax
  inc %rax
  leave
  ret
  .size through_asm, . - through_asm

  .globl asm_leaf
  .type asm_leaf, @function
asm_leaf:
  push %rbp
  mov %rsp, %rbp
  mov %rdi, %rax
  mov %esi, %ecx
1:
  imul $1103515245, %rax, %rax
  add $12345, %rax
  dec %ecx
  jnz 1b
  pop %rbp
  ret
  .size asm_leaf, . - asm_leaf
  .section .note.GNU-stack, "", @progbits
