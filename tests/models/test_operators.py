"""The laws of every operator, over one list. A new operator gets them by adding its name."""

import pytest
import torch
from skimage.restoration import inpaint_biharmonic

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import CG_TOLERANCE, Operator, separable
from instantvir_models.operators.blur import (
    Defocus,
    GaussianBlur,
    MotionBlur,
    PointSpread,
    TemporalBlur,
    UnsharpMask,
    even_spectrum,
    gaussian_kernel,
    rotated_gaussian,
)
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.consistency import (
    consistent_and_measured,
    data_consistency,
    relative_residual,
)
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask, bend_like_plates, pull_push
from instantvir_models.operators.measurement import Degradation, Measurement, degrade
from instantvir_models.operators.modes import Grid
from instantvir_models.operators.prior import initial_estimate

SHAPE = (2, 5, 3, 24, 36)  # B, T, C, H, W: no two neighbours equal


def random_mask(frames):
    return (
        torch.rand(frames, 1, *SHAPE[-2:], generator=torch.Generator().manual_seed(0)) > 0.5
    ).double()


def lopsided_psf(rows, columns):
    return torch.rand(
        rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


OPERATORS = {
    "identity": lambda: Identity(),
    "blur": lambda: GaussianBlur(1.5),
    "wide blur": lambda: GaussianBlur(9.0),
    "anisotropic blur": lambda: GaussianBlur(0.7, 2.0),
    "rotated blur": lambda: PointSpread(
        rotated_gaussian(2, 0.7, 30), spec="blur:sigma=2,sigma_short=0.7,angle=30"
    ),
    "out of focus": lambda: Defocus(2.3),
    "unsharp mask": lambda: UnsharpMask(1.2, 1.2),
    "motion along a line": lambda: MotionBlur(7, 0),
    "motion at an angle": lambda: MotionBlur(6.5, 30),
    "lopsided point spread": lambda: PointSpread(lopsided_psf(5, 4), spec="psf:path=k.png"),
    "point spread larger than the frame": lambda: PointSpread(
        lopsided_psf(31, 7), spec="psf:path=k.png"
    ),
    "temporal average": lambda: TemporalBlur.uniform(3),
    "temporal Gaussian longer than the clip": lambda: TemporalBlur.gaussian(13, 2.0),
    "area x2": lambda: Downsample(2),
    "area x3": lambda: Downsample(3),
    "bicubic x2": lambda: Downsample(2, "bicubic"),
    "bicubic x4": lambda: Downsample(4, "bicubic"),
    "mask": lambda: Mask(random_mask(1)),
    "mask per frame": lambda: Mask(random_mask(3)),
    "blur then down": lambda: Composition([GaussianBlur(1.0), Downsample(2)]),
    "temporal then mask": lambda: Composition([TemporalBlur.uniform(3), Mask(random_mask(1))]),
}
NAMES = list(OPERATORS)

# Blurs lose high frequencies for good, so only a regularised inverse exists for them.
EXACTLY_INVERTIBLE = [
    "identity",
    "unsharp mask",
    "area x2",
    "area x3",
    "bicubic x2",
    "bicubic x4",
    "mask",
    "mask per frame",
]


def random_video(dtype=torch.float64):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)


def natural_video(frames=3, height=48, width=72):
    """[1, T, 3, H, W]: smooth noise, hard edges and a moving square."""
    generator = torch.Generator().manual_seed(5)
    x = torch.zeros(1, 3, height, width + 8)
    for cells, gain in ((3, 0.4), (6, 0.25), (12, 0.15), (24, 0.08)):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        x += gain * torch.nn.functional.interpolate(noise, size=x.shape[-2:], mode="bicubic")
    x[..., height // 3 :, width // 2 :] += 0.3
    clip = torch.stack([x[..., t : t + width] for t in range(frames)], 1)
    for t in range(frames):
        clip[:, t, :, 10:22, 8 + 2 * t : 20 + 2 * t] = torch.tensor([0.6, -0.5, 0.1])[:, None, None]
    return clip.clamp(-1, 1)


def psnr(x_hat, x):
    return float(-10 * torch.log10(((x_hat - x) / 2).square().mean()))


def initial(operator, y, noise_std=0.0):
    return initial_estimate(Measurement(y, Degradation(operator=operator, noise_std=noise_std)))


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", NAMES)
def test_the_adjoint_is_the_transpose(name):
    operator = OPERATORS[name]()
    x = random_video()
    y = torch.randn(operator.A(x).shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    left, right = (operator.A(x) * y).sum(), (x * operator.A_adjoint(y)).sum()
    scale = operator.A(x).norm() * y.norm()
    assert abs(left - right) < 1e-12 * scale


@pytest.mark.parametrize("name", NAMES)
def test_the_operator_is_linear(name):
    operator = OPERATORS[name]()
    a, b = random_video(), random_video().flip(-1)
    assert relative(operator.A(2 * a - 3 * b), 2 * operator.A(a) - 3 * operator.A(b)) < 1e-12


@pytest.mark.parametrize("name", EXACTLY_INVERTIBLE)
def test_the_pseudo_inverse_explains_a_clean_measurement(name):
    operator = OPERATORS[name]()
    y = operator.A(random_video())
    assert relative(operator.A(operator.A_dagger(y)), y) < 1e-4


@pytest.mark.parametrize("weight", [0.1, 30.0])
@pytest.mark.parametrize("name", NAMES)
def test_solve_solves_the_normal_equation(name, weight):
    operator = OPERATORS[name]()
    b = random_video()
    v = operator.solve(b, weight)
    is_closed = isinstance(operator, Mask) or operator.mode_steps(Grid(SHAPE[1], *SHAPE[-2:]))
    tolerance = 2 * CG_TOLERANCE if is_closed is None else 1e-9
    assert relative(v + weight * operator.A_adjoint(operator.A(v)), b) < tolerance


@pytest.mark.parametrize("name", NAMES)
def test_what_is_nearest_solves_its_normal_equation(name):
    operator, x_hat, weight = OPERATORS[name](), random_video(), 3.0
    y = operator.A(random_video().flip(-1))
    x = operator.nearest_to(x_hat, y, weight)
    left = x + weight * operator.A_adjoint(operator.A(x))
    right = x_hat + weight * operator.A_adjoint(y)
    assert relative(left, right) < 2 * CG_TOLERANCE


def test_enlarging_by_cells_equals_its_modes():
    """What is known of the area average by heart, against the matrices that everything goes by."""
    for factor in (2, 3, 4):
        operator, x = Downsample(factor), random_video()
        rows, columns = operator._matrices(*x.shape[-2:])
        y = separable(x, rows, columns)
        assert relative(operator.A(x), y) < 1e-12
        assert relative(operator.A_adjoint(y), separable(y, rows.mT, columns.mT)) < 1e-12
        assert relative(operator.solve(x, 7.0), Operator.solve(operator, x, 7.0)) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_shapes_follow_the_sizes_that_are_announced(name):
    operator = OPERATORS[name]()
    y = operator.A(random_video())
    assert tuple(y.shape[-2:]) == operator.measured_size(*SHAPE[-2:])
    assert operator.clean_size(*y.shape[-2:]) == SHAPE[-2:]
    for back in (operator.A_adjoint(y), operator.A_dagger(y), initial(operator, y, 0.01)):
        assert back.shape == SHAPE
        assert torch.isfinite(back).all()
    known = operator.known_pixels(y)
    assert known is None or torch.broadcast_shapes(known.shape, (*SHAPE[:2], 1, *SHAPE[-2:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_the_dtype_is_kept(name, dtype):
    operator = OPERATORS[name]()
    y = operator.A(random_video(dtype))
    assert y.dtype == dtype
    assert initial(operator, y).dtype == dtype
    assert operator.solve(random_video(dtype), 2.0).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_and_equal_the_adjoint(name):
    operator = OPERATORS[name]()
    x = random_video().requires_grad_()
    y = operator.A(x)
    towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    (gradient,) = torch.autograd.grad((y * towards).sum(), x)
    assert relative(gradient, operator.A_adjoint(towards)) < 1e-12
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    operator.solve(x, weight).square().sum().backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
def test_the_device_is_kept(name):
    operator = OPERATORS[name]()
    y = operator.A(random_video(torch.float32).cuda())
    assert y.is_cuda
    assert initial(operator, y).is_cuda


@pytest.mark.parametrize("name", NAMES)
def test_traits_are_sane(name):
    traits = OPERATORS[name]().traits
    assert 0 < traits.known_fraction <= 1
    assert traits.scale >= 1
    assert traits.blur_sigma >= 0


def test_traits_of_a_blur_are_its_sigma():
    assert GaussianBlur(2.5).traits.blur_sigma == 2.5
    assert PointSpread(rotated_gaussian(2, 2, 0), spec="x").traits.blur_sigma == pytest.approx(
        2, 0.01
    )


@pytest.mark.parametrize("radius", [2.0, 3.5, 9.0])
def test_a_disc_is_told_as_a_gaussian_of_half_its_radius(radius):
    assert Defocus(radius).traits.blur_sigma == pytest.approx(radius / 2, rel=0.06)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 117])
def test_a_line_spreads_along_its_angle_alone(angle):
    psf = MotionBlur(15, angle).psf
    rows = torch.arange(psf.shape[0]) - psf.shape[0] // 2
    columns = torch.arange(psf.shape[1]) - psf.shape[1] // 2
    direction = torch.deg2rad(torch.tensor(float(angle)))
    along = columns * direction.cos() + rows[:, None] * direction.sin()
    across = rows[:, None] * direction.cos() - columns * direction.sin()
    assert float((psf * along**2).sum()) == pytest.approx(15**2 / 12, rel=0.03)
    assert float((psf * across**2).sum()) < 0.2


def test_an_axis_gets_equal_taps():
    torch.testing.assert_close(MotionBlur(7, 0).psf, torch.full((1, 7), 1 / 7).double())
    torch.testing.assert_close(MotionBlur(7, 90).psf, torch.full((7, 1), 1 / 7).double())


@pytest.mark.parametrize("blur", [Defocus(0.25), MotionBlur(0.5, 30)])
def test_a_blur_within_a_pixel_is_none(blur):
    assert blur.is_identity


@pytest.mark.parametrize("sigma", [0.6, 3.0])
def test_blur_equals_convolution_with_mirrored_borders(sigma):
    x = random_video()
    taps = gaussian_kernel(sigma)
    by_image = PointSpread(torch.outer(taps, taps), spec="x").A(x)
    assert relative(GaussianBlur(sigma).A(x), by_image) < 1e-12


def test_an_unsharp_mask_adds_what_its_blur_takes_away():
    x = random_video()
    sharpened = x + 0.8 * (x - GaussianBlur(1.5).A(x))
    assert relative(UnsharpMask(0.8, 1.5).A(x), sharpened) < 1e-12


def test_an_even_spectrum_is_one_at_rest():
    assert float(even_spectrum(gaussian_kernel(2.0), 16)[0]) == pytest.approx(1.0)


def test_area_downsampling_is_average_pooling():
    x = random_video().flatten(0, 1)
    expected = torch.nn.functional.avg_pool2d(x, 3)
    assert relative(Downsample(3).A(x[None])[0], expected) < 1e-12


def test_bicubic_downsampling_is_the_antialiased_one_inside():
    x = random_video().flatten(0, 1)
    size = (SHAPE[-2] // 2, SHAPE[-1] // 2)
    expected = torch.nn.functional.interpolate(x, size=size, mode="bicubic", antialias=True)
    actual = Downsample(2, "bicubic").A(x[None])[0]
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(actual[inside], expected[inside], rtol=1e-6, atol=1e-6)


def test_a_video_that_does_not_divide_is_named():
    with pytest.raises(UsageError, match="a frame of 13x8 cannot be shrunk by 4"):
        Downsample(4).A(torch.zeros(1, 1, 3, 8, 13))


def test_masks_follow_the_frames_and_the_last_one_stays():
    mask = random_mask(3)
    operator = Mask(mask)
    x = random_video()
    expected = x * mask[[0, 1, 2, 2, 2]]
    torch.testing.assert_close(operator.A(x), expected)
    torch.testing.assert_close(operator.at_frame(1).A(x[:, 1:]), expected[:, 1:])
    torch.testing.assert_close(operator.at_frame(99).A(x), x * mask[[2, 2, 2, 2, 2]])


@pytest.mark.parametrize("bad", [torch.zeros(3, 4), torch.full((1, 1, 2, 2), 0.5)])
def test_a_mask_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="a mask"):
        Mask(bad)


def test_pull_push_keeps_flat_areas_flat():
    known = (torch.rand(1, 2, 1, 33, 47, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    filled = pull_push(0.25 * known.expand(1, 2, 3, 33, 47), known)
    torch.testing.assert_close(filled, torch.full_like(filled, 0.25), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("operator", "noise_std"),
    [(GaussianBlur(1.5), 0.01), (Downsample(2), 0.0), (Downsample(4, "bicubic"), 0.0)],
)
def test_the_initial_estimate_beats_the_obvious(operator, noise_std):
    x = natural_video()
    y = degrade(
        x,
        Degradation(operator=operator, noise_std=noise_std),
        generator=torch.Generator().manual_seed(0),
    ).y
    obvious = torch.nn.functional.interpolate(y[0], size=x.shape[-2:], mode="bilinear")[None]
    assert psnr(initial(operator, y, noise_std), x) > psnr(obvious, x) + 0.5


def test_the_initial_estimate_fills_holes():
    mask = (torch.rand(1, 1, 48, 72, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    x = natural_video()
    estimate = initial(Mask(mask), x * mask)
    assert psnr(estimate, x) > psnr(x * mask, x) + 10
    torch.testing.assert_close(estimate * mask, x * mask)


def consistent_pairs():
    mask = (torch.rand(1, 1, 48, 72, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    return {
        "denoise": (Identity(), 0.2),
        "deblur": (GaussianBlur(1.5), 0.02),
        "sr": (Downsample(4), 0.0),
        "sr noisy": (Downsample(2, "bicubic"), 0.02),
        "inpaint": (Mask(mask), 0.0),
        "inpaint noisy": (Mask(mask), 0.05),
        "temporal": (TemporalBlur.uniform(3), 0.01),
    }


@pytest.mark.parametrize("name", consistent_pairs())
def test_consistency_never_moves_away_from_the_measurement(name):
    operator, noise_std = consistent_pairs()[name]
    x = natural_video()
    degradation = Degradation(operator=operator, noise_std=noise_std)
    measurement = degrade(x, degradation, generator=torch.Generator().manual_seed(0))
    x_hat = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    corrected = data_consistency(x_hat, measurement, estimate_std=0.1)
    assert relative_residual(corrected, measurement) <= relative_residual(x_hat, measurement)


@pytest.mark.parametrize("name", consistent_pairs())
def test_consistency_makes_an_honest_estimate_better(name):
    """With the estimate's true error as its std, the correction is a Bayes update: it helps."""
    operator, noise_std = consistent_pairs()[name]
    x = natural_video()
    degradation = Degradation(operator=operator, noise_std=noise_std)
    measurement = degrade(x, degradation, generator=torch.Generator().manual_seed(0))
    x_hat = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    corrected = data_consistency(x_hat, measurement, estimate_std=0.1)
    assert psnr(corrected, x) > psnr(x_hat, x)


@pytest.mark.parametrize("name", consistent_pairs())
def test_consistency_leaves_the_truth_alone(name):
    operator, _ = consistent_pairs()[name]
    x = natural_video()
    measurement = Measurement(operator.A(x), Degradation(operator=operator, noise_std=0.0))
    corrected = data_consistency(x, measurement, estimate_std=0.1)
    torch.testing.assert_close(corrected, x, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", consistent_pairs())
def test_what_consistency_says_the_camera_would_see_is_what_it_sees(name):
    operator, noise_std = consistent_pairs()[name]
    x = natural_video()
    degradation = Degradation(operator=operator, noise_std=noise_std)
    measurement = degrade(x, degradation, generator=torch.Generator().manual_seed(0))
    found, seen = consistent_and_measured(x + 0.1, measurement, estimate_std=0.1)
    assert torch.equal(found, data_consistency(x + 0.1, measurement, estimate_std=0.1))
    torch.testing.assert_close(seen, operator.A(found), rtol=0, atol=1e-5)


def smooth_surface_with_holes():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    clean = (torch.sin(x / 9) * torch.cos(y / 7) * 0.6).expand(1, 1, 3, 64, 80).clone()
    known = torch.rand(1, 1, 64, 80, generator=torch.Generator().manual_seed(0)) < 0.5
    return clean, known.float()


def test_plates_bend_towards_the_biharmonic_solution():
    clean, known = smooth_surface_with_holes()
    measured = (clean * known)[0, 0]
    expected = inpaint_biharmonic(measured[0].numpy(), known[0, 0].numpy() == 0)
    bent = bend_like_plates(measured, 1 - known[0], steps=200)
    inside = (slice(None), slice(6, -6), slice(6, -6))  # scikit-image treats borders differently
    expected = torch.from_numpy(expected).float().expand(3, -1, -1)
    torch.testing.assert_close(bent[inside], expected[inside], rtol=0, atol=2e-3)


def test_filled_holes_keep_known_pixels_and_beat_an_average():
    clean, known = smooth_surface_with_holes()
    operator = Mask(known)
    filled = initial(operator, operator.A(clean))
    assert torch.equal(filled * known, clean * known)
    averaged = pull_push(clean * known, known[None])
    error = (filled - clean).square().mean().sqrt()
    assert error < 0.3 * ((averaged - clean) * (1 - known)).square().mean().sqrt()


def test_a_mask_without_holes_changes_nothing():
    operator = Mask(torch.ones(1, 1, 16, 16))
    x = torch.rand(1, 2, 3, 16, 16)
    assert torch.equal(initial(operator, x), x)
