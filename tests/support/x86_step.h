// As much of the x86-64 instruction set as the step oracle needs: what moves a return address, and what prologues and
// epilogues are made of. Internal to step_oracle.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyrometer::testing {

enum class Transfer { kNone, kCall, kReturn, kJump, kSystemCall };

struct Instruction {
  Transfer transfer = Transfer::kNone;
  size_t bytes = 0;       // length where `setup` or `teardown`, else 0
  bool setup = false;     // part of a prologue: push, sub rsp, mov rsp→rbp, register moves, endbr64
  bool teardown = false;  // part of an epilogue: pop, add rsp, leave, lea rsp
};

// `code` holds `available` bytes, up to 16, from the instruction on.
inline Instruction Decode(const uint8_t* code, size_t available) {
  Instruction result;
  size_t at = 0;
  const auto byte = [&](size_t i) -> uint8_t { return i < available ? code[i] : 0; };
  if (byte(0) == 0xf3 && byte(1) == 0x0f && byte(2) == 0x1e && byte(3) == 0xfa) {
    return {.bytes = 4, .setup = true};
  }
  bool prefixed = false;
  for (; at < 8; ++at) {
    const uint8_t b = byte(at);
    if (b != 0x66 && b != 0x67 && b != 0xf2 && b != 0xf3 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26 &&
        b != 0x64 && b != 0x65 && b != 0xf0) {
      break;
    }
    prefixed = true;
  }
  uint8_t rex = 0;
  if ((byte(at) & 0xf0) == 0x40) rex = byte(at++);
  const uint8_t op = byte(at), modrm = byte(at + 1);
  const uint8_t reg = (modrm >> 3) & 7, rm = modrm & 7, mod = modrm >> 6;
  switch (op) {
    case 0xe8:
      result.transfer = Transfer::kCall;
      return result;
    case 0xc3:
    case 0xc2:
      result.transfer = Transfer::kReturn;
      return result;
    case 0xff:
      if (reg == 2) result.transfer = Transfer::kCall;
      if (reg == 4) result.transfer = Transfer::kJump;
      if (reg == 6 && rex == 0x41 && modrm == 0x72) return {.bytes = 4, .setup = true};  // push -8(%r10): realigned
      return result;
    case 0xeb:
    case 0xe9:
      result.transfer = Transfer::kJump;
      return result;
    case 0x0f:
      if (modrm == 0x05) result.transfer = Transfer::kSystemCall;
      return result;
    default:
      break;
  }
  if (prefixed) return result;
  const bool wide = (rex & 8) != 0;
  if (op >= 0x50 && op <= 0x57) return {.bytes = at + 1, .setup = true};
  if (op >= 0x58 && op <= 0x5f) return {.bytes = at + 1, .teardown = true};
  if (op == 0xc9) return {.bytes = at + 1, .teardown = true};
  if (wide && (op == 0x83 || op == 0x81) && mod == 3 && rm == 4 && (rex & 1) == 0) {
    const size_t bytes = at + 2 + (op == 0x83 ? 1 : 4);
    if (reg == 5 || reg == 4) return {.bytes = bytes, .setup = true};  // sub, and
    if (reg == 0) return {.bytes = bytes, .teardown = true};           // add
    return result;
  }
  if (wide && op == 0x8d && (reg | (rex & 4) << 1) == 4 && mod != 3) {  // lea …, %rsp with an rbp or r10 base
    return {.bytes = at + 2 + (mod == 1 ? 1u : mod == 2 ? 4u : 0u), .teardown = true};
  }
  if (wide && op == 0x8d && rm == 4 && byte(at + 2) == 0x24 && mod == 1) {  // lea n(%rsp), reg
    return {.bytes = at + 4, .setup = true};
  }
  if ((op == 0x89 || op == 0x8b) && mod == 3) return {.bytes = at + 2, .setup = true};  // register to register
  return result;
}

}  // namespace pyrometer::testing
