/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The largest eigenvalue of a matrix by power iteration, in C++17: the rows are dealt out over four
 * devices, each of which multiplies its own by the vector; an all_gather puts the products together
 * and an all_reduce gives their length. Half way a device is lost. The world is rebuilt, the rows
 * are dealt out again, and the iteration goes on from the last vector that the program has read.
 *
 *     c++ -std=c++17 eigenvalue.cpp $(pkg-config --cflags --libs lockstep) && ./a.out
 */
#include <lockstep.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace
{

constexpr uint32_t kRanks = 4;
constexpr size_t kRows = 64; /* of each rank */
constexpr size_t kN = kRanks * kRows;
constexpr uint32_t kWaitMs = 60000;
constexpr int kSteps = 24;

/* ---- What a program in C++ wants of the library: owners, and failures as exceptions ---- */

template <typename T, void (*release)(T **)> struct Release {
    void operator()(T *handle) const
    {
        release(&handle);
    }
};
using Device = std::unique_ptr<lockstep_device, Release<lockstep_device, lockstep_device_destroy>>;
using World = std::unique_ptr<lockstep_world, Release<lockstep_world, lockstep_world_destroy>>;
using Tensor = std::unique_ptr<lockstep_tensor, Release<lockstep_tensor, lockstep_tensor_destroy>>;
using Op = std::unique_ptr<lockstep_op, Release<lockstep_op, lockstep_op_release>>;

struct Failure : std::runtime_error {
    explicit Failure(const lockstep_error &error)
        : std::runtime_error(error.text), status(error.status)
    {
    }
    lockstep_status status;
};

void check(lockstep_status status, const lockstep_error &error)
{
    if (status != LOCKSTEP_OK) {
        throw Failure(error);
    }
}

void wait(const Op &op)
{
    lockstep_error error = {};

    check(lockstep_op_wait(op.get(), kWaitMs, &error), error);
}

Device make_device(const std::string &name, const std::vector<lockstep_function> &functions)
{
    lockstep_device_config config = {};
    lockstep_device *device = nullptr;
    lockstep_error error = {};

    config.bytes = sizeof(config);
    config.name = name.c_str();
    config.functions = functions.data();
    config.n_functions = functions.size();
    check(lockstep_device_create(&config, &device, &error), error);
    return Device(device);
}

World make_world(const std::vector<Device> &devices)
{
    std::vector<lockstep_device *> list;
    lockstep_world *world = nullptr;
    lockstep_error error = {};

    for (const Device &device : devices) {
        list.push_back(device.get());
    }
    check(lockstep_world_create(list.data(), static_cast<uint32_t>(list.size()), nullptr, &world,
                                &error),
          error);
    return World(world);
}

Tensor make_tensor(const Device &device, size_t count)
{
    lockstep_tensor *tensor = nullptr;
    lockstep_error error = {};

    check(lockstep_tensor_create(device.get(), LOCKSTEP_F64, count, kWaitMs, &tensor, &error),
          error);
    return Tensor(tensor);
}

void call(const Device &device, const char *function, const std::vector<lockstep_tensor *> &tensors)
{
    lockstep_call_args args = {};
    lockstep_error error = {};

    args.bytes = sizeof(args);
    args.tensors = tensors.data();
    args.n_tensors = tensors.size();
    check(lockstep_call(device.get(), function, &args, nullptr, nullptr, &error), error);
}

/* ---- What runs on the devices (struct is said where a function has the same name) ---- */

double *data_of(const struct lockstep_call *call, size_t i)
{
    return static_cast<double *>(call->tensors[i].data);
}

/* rows, x, y, square: y = rows x, square = |y|^2. */
lockstep_status multiply(struct lockstep_call *call)
{
    const double *rows = data_of(call, 0);
    const double *x = data_of(call, 1);
    double *y = data_of(call, 2);
    double *square = data_of(call, 3);

    *square = 0;
    for (size_t i = 0; i < kRows; i++) {
        y[i] = 0;
        for (size_t j = 0; j < kN; j++) {
            y[i] += rows[i * kN + j] * x[j];
        }
        *square += y[i] * y[i];
    }
    return LOCKSTEP_OK;
}

/* x, square: x / sqrt(square). */
lockstep_status scale(struct lockstep_call *call)
{
    double *x = data_of(call, 0);
    const double length = std::sqrt(*data_of(call, 1));

    for (size_t i = 0; i < kN; i++) {
        x[i] /= length;
    }
    return LOCKSTEP_OK;
}

/* ---- The iteration ---- */

/* The matrix is 3 I + u u', whose largest eigenvalue is 3 + |u|^2. */
double u(size_t i)
{
    return 0.05 * static_cast<double>(1 + i % 5);
}

/* One epoch's handles. */
struct Parts {
    std::vector<Tensor> rows, x, y, square;

    Parts(const std::vector<Device> &devices, const std::vector<double> &start)
    {
        for (size_t r = 0; r < devices.size(); r++) {
            lockstep_error error = {};

            rows.push_back(make_tensor(devices[r], kRows * kN));
            x.push_back(make_tensor(devices[r], kN));
            y.push_back(make_tensor(devices[r], kRows));
            square.push_back(make_tensor(devices[r], 1));
            auto *data = static_cast<double *>(lockstep_tensor_data(rows[r].get(), &error));
            if (data == nullptr) {
                throw Failure(error);
            }
            for (size_t i = 0; i < kRows; i++) {
                for (size_t j = 0; j < kN; j++) {
                    data[i * kN + j] = u(r * kRows + i) * u(j) + (r * kRows + i == j ? 3 : 0);
                }
            }
            check(lockstep_tensor_write(x[r].get(), 0, kN, start.data(), kWaitMs, &error), error);
        }
    }
};

std::vector<lockstep_tensor *> handles(const std::vector<Tensor> &tensors)
{
    std::vector<lockstep_tensor *> out;

    for (const Tensor &tensor : tensors) {
        out.push_back(tensor.get());
    }
    return out;
}

/* x becomes A x / |A x|; returns |A x|. Nothing is waited for before all of it is queued. */
double step(const World &world, const std::vector<Device> &devices, const Parts &parts)
{
    const auto x = handles(parts.x), y = handles(parts.y), square = handles(parts.square);
    lockstep_op *gathered = nullptr, *summed = nullptr;
    lockstep_error error = {};
    double length = 0;

    for (size_t r = 0; r < devices.size(); r++) {
        call(devices[r], "multiply", {parts.rows[r].get(), x[r], y[r], square[r]});
    }
    check(lockstep_all_gather(world.get(), y.data(), x.data(), nullptr, &gathered, &error), error);
    const Op gathered_owner(gathered);
    check(lockstep_all_reduce(world.get(), square.data(), square.data(), LOCKSTEP_SUM, nullptr,
                              &summed, &error),
          error);
    const Op summed_owner(summed);
    for (size_t r = 0; r < devices.size(); r++) {
        call(devices[r], "scale", {x[r], square[r]});
    }
    wait(gathered_owner);
    wait(summed_owner);
    check(lockstep_tensor_read(square[0], 0, 1, &length, kWaitMs, &error), error);
    return std::sqrt(length);
}

/* All steps, the last vector kept as the program's own; tries again when the world was rebuilt. */
double iterate(const World &world, const std::vector<Device> &devices)
{
    std::vector<double> x(kN, 1.0 / std::sqrt(static_cast<double>(kN)));
    std::unique_ptr<Parts> parts;
    double eigenvalue = 0;
    bool lost = false;

    for (int done = 0; done < kSteps;) {
        try {
            lockstep_error error = {};

            if (parts == nullptr) {
                check(lockstep_world_wait(world.get(), 0, kWaitMs, &error), error);
                parts = std::make_unique<Parts>(devices, x);
            }
            if (done == kSteps / 2 && !lost) {
                lost = true;
                lockstep_device_reset(devices[1].get(), "the example takes it away");
            }
            eigenvalue = step(world, devices, *parts);
            check(lockstep_tensor_read(parts->x[0].get(), 0, kN, x.data(), kWaitMs, &error), error);
            done++;
        } catch (const Failure &failure) {
            if (failure.status == LOCKSTEP_GIVEN_UP || failure.status == LOCKSTEP_INVALID) {
                throw;
            }
            std::printf("  %s\n", failure.what());
            parts.reset();
        }
    }
    return eigenvalue;
}

} // namespace

int main()
{
    try {
        const std::vector<lockstep_function> functions = {{"multiply", multiply}, {"scale", scale}};
        std::vector<Device> devices; /* destroyed after the world */
        double expected = 3;

        for (uint32_t r = 0; r < kRanks; r++) {
            devices.push_back(make_device("part " + std::to_string(r), functions));
        }
        const World world = make_world(devices);
        const double found = iterate(world, devices);

        for (size_t i = 0; i < kN; i++) {
            expected += u(i) * u(i);
        }
        std::printf("largest eigenvalue: %.12g (%.12g)\n", found, expected);
        return std::fabs(found - expected) < 1e-9 * expected ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
